<?php

namespace App;

/**
 * What a back end needs of Legato: tokens, jobs, and names of keys in Redis. Needs no framework.
 */
final class Legato
{
    /** The channel on which replies to a user arrive, as `routes/channels.php` and Echo name it. */
    public const CHANNEL = 'ai-chat.{userId}';

    public static function jobs(string $queue = 'ai-streaming'): string
    {
        return "legato:jobs:{{$queue}}";
    }

    /** A worker ends the reply that has this flag. */
    public static function cancelFlag(string $messageId): string
    {
        return "stream_cancel:{$messageId}";
    }

    /** A JSON Web Token (HS256) that says who the user is. */
    public static function token(int|string $userId, string $secret, int $seconds = 3600): string
    {
        $parts = [
            self::encoded(['alg' => 'HS256', 'typ' => 'JWT']),
            self::encoded(['sub' => (string) $userId, 'exp' => time() + $seconds]),
        ];
        $signature = hash_hmac('sha256', implode('.', $parts), $secret, binary: true);

        return implode('.', [...$parts, self::base64url($signature)]);
    }

    /**
     * The field `job` of an entry in the job stream.
     *
     * @param  list<array{role: 'user'|'assistant', content: string}>  $history  oldest first
     * @param  array<string, mixed>  $options  further keys, such as `model` or `conversation_id`
     */
    public static function job(
        string $appId,
        int|string $userId,
        string $messageId,
        string $message,
        array $history = [],
        array $options = [],
    ): string {
        $job = [
            'message_id' => $messageId,
            'app_id' => $appId,
            'user_id' => $userId,
            'message' => $message,
            'history' => $history,
            'queued_at' => (int) (microtime(true) * 1000),
        ];

        return json_encode($job + $options, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE);
    }

    private static function encoded(array $claims): string
    {
        return self::base64url(json_encode($claims, JSON_THROW_ON_ERROR));
    }

    private static function base64url(string $bytes): string
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }
}
