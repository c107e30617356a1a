<?php

declare(strict_types=1);

namespace Legato\Laravel;

use Illuminate\Contracts\Auth\Authenticatable;

/**
 * For agents of Laravel's AI SDK: the reply is streamed by Legato's workers instead of a PHP process.
 *
 * Tools of the class do not run there. Name an agent of the worker in `legatoAgent()` for that.
 */
trait StreamsByLegato
{
    /**
     * Queue the prompt. The reply is broadcast on the channel.
     *
     * @param  string|\Stringable  $channel  such as `new PrivateChannel('ai-chat.7')`
     * @param  Authenticatable|int|string|null  $user  whose reply it is; null for who is signed in
     * @return string the message's id
     */
    public function broadcastByLegato(
        string $prompt,
        string|\Stringable $channel,
        Authenticatable|int|string|null $user = null,
    ): string {
        $user ??= auth()->id();
        $job = new Job(
            (string) config('legato.app_id'),
            $user instanceof Authenticatable ? $user->getAuthIdentifier() : $user,
            $prompt,
            (string) $channel,
            $this->legatoHistory(),
            [
                'agent' => $this->legatoAgent(),
                'system' => method_exists($this, 'instructions') ? (string) $this->instructions() : null,
                'dialect' => config('legato.dialect'),
            ],
        );
        app(Replies::class)->submit($job);

        return $job->messageId;
    }

    /** The agent of the worker that answers; null for the default. */
    protected function legatoAgent(): ?string
    {
        return null;
    }

    /** @return list<array{role: string, content: string}> */
    private function legatoHistory(): array
    {
        $turns = [];
        foreach (method_exists($this, 'messages') ? $this->messages() : [] as $message) {
            $message = is_array($message) ? (object) $message : $message; // the SDK takes both
            $role = $message->role instanceof \BackedEnum ? $message->role->value : $message->role;
            if (in_array($role, ['user', 'assistant'], true) && is_string($message->content) && $message->content !== '') {
                $turns[] = ['role' => $role, 'content' => $message->content];
            }
        }

        return $turns;
    }
}
