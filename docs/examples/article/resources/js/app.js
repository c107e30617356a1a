import Alpine from "alpinejs";
import Pusher from "pusher-js";

import { aiChat } from "./ai-chat.js";

window.Pusher = Pusher;

Alpine.data("aiChat", aiChat);
Alpine.start();
