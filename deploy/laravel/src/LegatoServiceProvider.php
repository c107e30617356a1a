<?php

declare(strict_types=1);

namespace Legato\Laravel;

use Illuminate\Contracts\Auth\Authenticatable;
use Illuminate\Contracts\Redis\Factory;
use Illuminate\Support\Facades\Broadcast;
use Illuminate\Support\Facades\Route;
use Illuminate\Support\ServiceProvider;

final class LegatoServiceProvider extends ServiceProvider
{
    public function register(): void
    {
        $this->mergeConfigFrom(__DIR__.'/../config/legato.php', 'legato');
        $this->app->singleton(Replies::class, fn ($app): Replies => new Replies(
            new LaravelCommands($app->make(Factory::class), (string) config('legato.connection')),
            (string) config('legato.queue'),
            (string) config('legato.prefix'),
        ));
    }

    public function boot(): void
    {
        $this->publishes([__DIR__.'/../config/legato.php' => config_path('legato.php')], 'legato-config');
        if (! config('legato.routes')) {
            return;
        }
        Route::middleware(config('legato.middleware'))->prefix('api/chat')->group(function (): void {
            Route::post('send', [ChatController::class, 'send'])->name('legato.send');
            Route::post('{id}/cancel', [ChatController::class, 'cancel'])->name('legato.cancel');
        });
        Broadcast::channel(
            'ai-chat.{userId}',
            fn (Authenticatable $user, string $userId): bool => (string) $user->getAuthIdentifier() === $userId,
        );
    }
}
