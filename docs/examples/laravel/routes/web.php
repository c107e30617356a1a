<?php

use App\Http\Controllers\ChatController;
use Illuminate\Support\Facades\Route;

// ChatController or ChatJobController: both send and cancel.
Route::middleware('auth')->group(function () {
    Route::get('/chat-token', [ChatController::class, 'token']);
    Route::post('/api/chat/send', [ChatController::class, 'send']);
    Route::post('/api/chat/{messageId}/cancel', [ChatController::class, 'cancel'])->whereUuid('messageId');
});
