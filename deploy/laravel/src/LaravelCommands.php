<?php

declare(strict_types=1);

namespace Legato\Laravel;

use Illuminate\Contracts\Redis\Factory;

/** A Redis connection of Laravel, by phpredis or Predis. */
final class LaravelCommands implements Commands
{
    public function __construct(private Factory $redis, private string $connection) {}

    public function run(string ...$words): mixed
    {
        $client = $this->redis->connection($this->connection)->client();

        return $client instanceof \Redis ? $client->rawCommand(...$words) : $client->executeRaw($words);
    }
}
