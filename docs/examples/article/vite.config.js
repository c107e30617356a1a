import { defineConfig } from "vite";

// As Laravel's plugin does, so that the back end serves the page at `/` and its files below `/build/`.
export default defineConfig({ base: "/build/" });
