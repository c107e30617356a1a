<?php

namespace App\Http\Controllers;

use App\Legato;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Cache;
use Illuminate\Support\Facades\Redis;
use Illuminate\Support\Str;

/**
 * Submits jobs to Legato's worker itself, by XADD. Instead of `send` and `cancel` of ChatController.
 */
class ChatJobController extends Controller
{
    private const OWNER_SECONDS = 24 * 3600;

    private const CANCEL_SECONDS = 300;

    public function send(Request $request): JsonResponse
    {
        $body = $request->validate(ChatController::rules());
        $messageId = (string) Str::uuid();
        $job = Legato::job(
            config('broadcasting.connections.reverb.app_id'),
            $request->user()->id,
            $messageId,
            $body['message'],
            array_values($body['history'] ?? []),
        );
        Cache::put("chat-owner:{$messageId}", $request->user()->id, self::OWNER_SECONDS);
        // Raw: a command of the facade would put Laravel's prefix before the key.
        $id = Redis::executeRaw(['XADD', Legato::jobs(), '*', 'job', $job]);
        abort_unless((bool) $id, 503); // such as at maxmemory, for which phpredis raises nothing

        return response()->json(['message_id' => $messageId]);
    }

    public function cancel(Request $request, string $messageId): JsonResponse
    {
        // As text: some stores give a number back as text.
        abort_unless((string) Cache::get("chat-owner:{$messageId}") === (string) $request->user()->id, 404);
        Redis::executeRaw(['SET', Legato::cancelFlag($messageId), '1', 'EX', self::CANCEL_SECONDS]);

        return response()->json(['cancelled' => true]);
    }
}
