/** `legato-client/auth`: channel authorisation with a token that may change, for a stock Echo or pusher-js. */

import { ApiError, errorOf, TEXTS } from "./errors.js";
import type { ApiOptions } from "./api.js";

interface Params {
  readonly channelName: string;
  readonly socketId: string;
}

interface ChannelAuth {
  readonly auth: string;
  readonly channel_data?: string;
  readonly shared_secret?: string;
}

type Answer = (error: Error | null, data: ChannelAuth | null) => void;

export interface AuthOptions extends ApiOptions {
  /** Default: `/broadcasting/auth` below `baseUrl`. */
  readonly endpoint?: string;
}

/**
 * Options for `new Echo({...})` or `new Pusher(key, {...})`: each subscription asks for the current token, and once
 * more if the server refuses it with 401. Echo's own `bearerToken` stays what it was when Echo was made.
 */
export function channelAuth(options: AuthOptions): {
  channelAuthorization: { customHandler: (params: Params, answer: Answer) => void };
} {
  return {
    channelAuthorization: {
      customHandler: (params, answer) => {
        authorize(options, params).then(
          (data) => {
            answer(null, data);
          },
          (error: unknown) => {
            const known = error instanceof ApiError ? error : new ApiError(TEXTS.offline, null);
            // pusher-js gives `status` to those who bind `pusher:subscription_error` only of its own kind of error.
            answer(known, null);
          },
        );
      },
    },
  };
}

async function authorize(options: AuthOptions, params: Params): Promise<ChannelAuth> {
  const { baseUrl = "", endpoint = `${baseUrl}/broadcasting/auth`, token } = options;
  const attempt = async (refused?: string): Promise<Response> => {
    const bearer = typeof token === "function" ? await token(refused) : token;
    const response = await fetch(endpoint, {
      method: "POST",
      headers: { Accept: "application/json", Authorization: `Bearer ${bearer}` },
      body: new URLSearchParams({ socket_id: params.socketId, channel_name: params.channelName }),
      signal: AbortSignal.timeout(options.timeoutMs ?? 30_000),
    });
    const again = response.status === 401 && refused === undefined && typeof token === "function";
    return again ? attempt(bearer) : response;
  };
  const response = await attempt();
  if (!response.ok) throw errorOf(response.status, null);
  return (await response.json()) as ChannelAuth;
}
