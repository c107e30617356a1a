<?php

declare(strict_types=1);

namespace Legato\Laravel;

/** One message to answer, as docs/jobs.md describes it. */
final class Job
{
    public readonly string $messageId;

    public readonly int|string $userId;

    /** The channel of the reply, with its `private-` or `presence-`. */
    public readonly string $channel;

    /**
     * @param  string|null  $channel  null for the user's own
     * @param  list<array{role: string, content: string}>  $history  oldest first
     * @param  array<string, mixed>  $options  such as `agent`, `model`, `system` and `dialect`; nulls are left out
     */
    public function __construct(
        public readonly string $appId,
        int|string $userId,
        public readonly string $message,
        ?string $channel = null,
        public readonly array $history = [],
        public readonly array $options = [],
        ?string $messageId = null,
    ) {
        $this->userId = self::userId($userId);
        $this->channel = $channel ?? "private-ai-chat.{$this->userId}";
        $this->messageId = $messageId ?? bin2hex(random_bytes(16));
        $this->check();
    }

    /** As JSON, for the job stream. `$now` is in milliseconds since 1970. */
    public function encode(int $now): string
    {
        $job = [
            ...array_filter($this->options, fn (mixed $value): bool => $value !== null && $value !== []),
            'message_id' => $this->messageId,
            'app_id' => $this->appId,
            'user_id' => $this->userId,
            'message' => $this->message,
            'queued_at' => $now,
            'channel' => $this->channel,
        ];
        if ($this->history !== []) {
            $job['history'] = $this->history;
        }

        return json_encode($job, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES);
    }

    /** An integer if it looks like one, as in a token's `sub`. */
    public static function userId(int|string $id): int|string
    {
        return is_string($id) && preg_match('/\A(0|[1-9][0-9]{0,14})\z/', $id) ? (int) $id : $id;
    }

    private function check(): void
    {
        $wrong = match (true) {
            ! preg_match('/\A[A-Za-z0-9_-]{1,64}\z/', $this->appId) => 'app_id',
            ! preg_match('/\A[A-Za-z0-9_\-=@,.;]{1,128}\z/', (string) $this->userId) => 'user_id',
            ! preg_match('/\A[A-Za-z0-9_-]{1,64}\z/', $this->messageId) => 'message_id',
            trim($this->message) === '' => 'message',
            ! preg_match('/\A(private|presence)-(?!encrypted-)[A-Za-z0-9_\-=@,.;]{1,191}\z/', $this->channel) => 'channel',
            default => null,
        };
        if ($wrong !== null) {
            throw new InvalidJob("A worker would refuse the job: {$wrong}");
        }
    }
}
