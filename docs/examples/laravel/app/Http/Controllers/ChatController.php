<?php

namespace App\Http\Controllers;

use App\Legato;
use Illuminate\Http\Client\PendingRequest;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Http\Response;
use Illuminate\Support\Facades\Http;

/**
 * Signs tokens, and sends and cancels through Legato's HTTP API. Needs no Redis.
 */
class ChatController extends Controller
{
    /** The token with which `legato-client` calls Legato by itself. */
    public function token(Request $request): Response
    {
        return response($this->tokenOf($request), headers: ['Content-Type' => 'text/plain']);
    }

    public function send(Request $request): JsonResponse
    {
        $body = $request->validate(self::rules());
        $answer = $this->legato($request)->post('/api/chat/send', $body);

        return response()->json($answer->json(), $answer->status());
    }

    public function cancel(Request $request, string $messageId): JsonResponse
    {
        $answer = $this->legato($request)->post("/api/chat/{$messageId}/cancel");

        return response()->json($answer->json(), $answer->status());
    }

    /** A reply can be longer than a message. */
    public static function rules(): array
    {
        return [
            'message' => ['required', 'string', 'max:2000'],
            'history' => ['array', 'max:40'],
            'history.*.role' => ['required', 'in:user,assistant'],
            'history.*.content' => ['required', 'string', 'max:100000'],
        ];
    }

    private function tokenOf(Request $request): string
    {
        return Legato::token($request->user()->id, config('services.legato.jwt_secret'));
    }

    private function legato(Request $request): PendingRequest
    {
        return Http::baseUrl(config('services.legato.url'))
            ->withToken($this->tokenOf($request))
            ->acceptJson()
            ->timeout(10);
    }
}
