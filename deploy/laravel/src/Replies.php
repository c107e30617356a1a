<?php

declare(strict_types=1);

namespace Legato\Laravel;

/** Queues jobs, and cancels their replies. */
final class Replies
{
    private const UNCLAIMED_SECONDS = '86400';

    private const CANCEL_SECONDS = '300';

    public function __construct(
        private Commands $redis,
        private string $queue = 'ai-streaming',
        private string $prefix = '',
    ) {}

    /** Queue a job. The message is recorded first, so that its user can cancel it before a worker has it. */
    public function submit(Job $job): void
    {
        $message = $this->messageKey($job->appId, $job->channel, $job->messageId);
        $this->redis->run('HSETNX', $message, 'user', json_encode($job->userId, JSON_THROW_ON_ERROR));
        $this->redis->run('HSETNX', $message, 'state', 'queued');
        $this->redis->run('EXPIRE', $message, self::UNCLAIMED_SECONDS, 'NX');
        $now = (int) (microtime(true) * 1000);
        $queued = $this->redis->run('XADD', "{$this->prefix}legato:jobs:{{$this->queue}}", '*', 'job', $job->encode($now));
        if (! is_string($queued) && ! $queued instanceof \Stringable) {
            throw new \RuntimeException('Redis has refused the job.');
        }
    }

    /** Cancel a reply. False if the user has no such message on the channel. Idempotent. */
    public function cancel(string $appId, int|string $userId, string $messageId, ?string $channel = null): bool
    {
        if (! preg_match('/\A[A-Za-z0-9_-]{1,64}\z/', $messageId)) {
            return false;
        }
        $userId = Job::userId($userId);
        $message = $this->messageKey($appId, $channel ?? "private-ai-chat.{$userId}", $messageId);
        $user = $this->redis->run('HGET', $message, 'user');
        if (! is_string($user) || trim($user, '"') !== (string) $userId) {
            return false;
        }
        $this->redis->run('SET', "{$this->prefix}stream_cancel:{{$messageId}}", '1', 'EX', self::CANCEL_SECONDS);
        $this->redis->run('HSET', $message, 'cancel', '1');

        return true;
    }

    private function messageKey(string $appId, string $channel, string $messageId): string
    {
        return "{$this->prefix}legato:msg:{{$appId}:{$channel}}:{$messageId}";
    }
}
