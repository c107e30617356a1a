<?php

return [

    // The application's id at the broadcaster.
    'app_id' => env('LEGATO_APP_ID', env('REVERB_APP_ID')),

    // The connection of config/database.php to the Redis of the workers. Laravel's key prefix is not used.
    'connection' => env('LEGATO_REDIS_CONNECTION', 'default'),

    // `redis.prefix` of Legato, and the queue that its workers serve.
    'prefix' => env('LEGATO_REDIS_PREFIX', ''),
    'queue' => env('LEGATO_QUEUE', 'ai-streaming'),

    // In whose words replies are told: 'laravel-ai', or null for Legato's own events.
    'dialect' => 'laravel-ai',

    // Limits on what people send to the routes.
    'max_message_characters' => 2000,
    'max_history_turns' => 40,
    'max_turn_characters' => 4000,

    // POST api/chat/send, POST api/chat/{id}/cancel, and the rule of the channel ai-chat.{userId}.
    'routes' => true,
    'middleware' => ['api', 'auth:sanctum'],

];
