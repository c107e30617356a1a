<?php

declare(strict_types=1);

namespace Legato\Laravel;

use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;

/** Sends a message, and cancels its reply, for the user who is signed in. */
final class ChatController
{
    public function __construct(private Replies $replies) {}

    public function send(Request $request): JsonResponse
    {
        $limits = config('legato');
        $sent = $request->validate([
            'message' => ['required', 'string', "max:{$limits['max_message_characters']}"],
            'history' => ['array', "max:{$limits['max_history_turns']}"],
            'history.*.role' => ['required', 'in:user,assistant'],
            'history.*.content' => ['required', 'string', "max:{$limits['max_turn_characters']}"],
        ]);
        $history = array_map(
            fn (array $turn): array => ['role' => $turn['role'], 'content' => $turn['content']],
            array_values($sent['history'] ?? []),
        );
        $job = new Job(
            (string) $limits['app_id'],
            $request->user()->getAuthIdentifier(),
            $sent['message'],
            history: $history,
            options: ['dialect' => $limits['dialect']],
        );
        $this->replies->submit($job);

        return new JsonResponse(['message_id' => $job->messageId]);
    }

    public function cancel(Request $request, string $id): JsonResponse
    {
        $user = $request->user()->getAuthIdentifier();
        if (! $this->replies->cancel((string) config('legato.app_id'), $user, $id)) {
            return new JsonResponse(['message' => 'No such message.'], 404);
        }

        return new JsonResponse(['cancelled' => true]);
    }
}
