import Alpine from "alpinejs";
import { legatoAlpine } from "legato-client/alpine";

import { baseUrl, echo, token, userId } from "./legato.js";

Alpine.data("chat", () => legatoAlpine({ echo, userId, token, baseUrl }));
Alpine.start();
