<?php

declare(strict_types=1);

namespace Legato\Laravel;

/** A job that a worker would refuse. */
final class InvalidJob extends \InvalidArgumentException {}
