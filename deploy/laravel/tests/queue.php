<?php

/** Queues jobs and cancels replies, as told on standard input: one JSON object a line, and one answer a line. */

declare(strict_types=1);

use Legato\Laravel\Commands;
use Legato\Laravel\Job;
use Legato\Laravel\Replies;
use Legato\Laravel\StreamsByLegato;

spl_autoload_register(function (string $class): void {
    require __DIR__.'/../src/'.substr($class, strlen('Legato\\Laravel\\')).'.php';
});

final class Client implements Commands
{
    public function __construct(private Redis $redis) {}

    public function run(string ...$words): mixed
    {
        return $this->redis->rawCommand(...$words);
    }
}

/** What Laravel has of these names. */
function config(string $name): mixed
{
    return ['legato.app_id' => '1', 'legato.dialect' => 'laravel-ai'][$name];
}

function app(string $class): Replies
{
    global $replies;

    return $replies;
}

enum Role: string
{
    case Assistant = 'assistant';
}

final class Turn
{
    public function __construct(public string|Role $role, public mixed $content) {}
}

final class Support
{
    use StreamsByLegato;

    public function instructions(): string
    {
        return 'Be kind.';
    }

    /** @return iterable<Turn|array{role: string, content: string}> */
    public function messages(): iterable
    {
        return [['role' => 'user', 'content' => 'Hi'], new Turn('tool', 'x'), new Turn('assistant', ''), new Turn(Role::Assistant, 'Hello.')];
    }

    protected function legatoAgent(): ?string
    {
        return 'support';
    }
}

$redis = new Redis;
$redis->connect($argv[1]);
$redis->setOption(Redis::OPT_PREFIX, 'laravel_database_');
$replies = new Replies(new Client($redis), 'q', $argv[2]);

while ($line = fgets(STDIN)) {
    $asked = json_decode($line, true, flags: JSON_THROW_ON_ERROR);
    try {
        $answer = match ($asked['do']) {
            'submit' => (function () use ($replies, $asked): string {
                $job = new Job(...$asked['job']);
                $replies->submit($job);

                return $job->messageId;
            })(),
            'agent' => (new Support)->broadcastByLegato('And?', 'private-desk.7', 7),
            'cancel' => $replies->cancel('1', ...$asked['of']),
        };
    } catch (Throwable $error) {
        $answer = ['error' => $error->getMessage()];
    }
    echo json_encode($answer, JSON_THROW_ON_ERROR), "\n";
}
