<?php

declare(strict_types=1);

namespace Legato\Laravel;

/** A Redis that takes a command as it is, without a prefix of keys. */
interface Commands
{
    public function run(string ...$words): mixed;
}
