<?php

use App\Legato;
use App\Models\User;
use Illuminate\Support\Facades\Broadcast;

Broadcast::channel(Legato::CHANNEL, fn (User $user, string $userId) => (string) $user->id === $userId);
