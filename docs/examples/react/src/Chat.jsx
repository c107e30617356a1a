import { keepIn } from "legato-client/storage";
import { useChat } from "legato-client/react";

import { baseUrl, echo, token, userId } from "./legato.js";

export function Chat() {
  const chat = useChat({ echo, userId, token, baseUrl, keep: keepIn() });
  const { turns, connection, canSend, activeStreams, error } = chat;
  return (
    <>
      <p role="status">{error?.text ?? connection}</p>
      <ol>
        {turns.map((turn) => (
          <Turn key={turn.key} turn={turn} chat={chat} />
        ))}
      </ol>
      <form action={(data) => chat.send(data.get("message"))}>
        <input name="message" aria-label="Message" autoComplete="off" />
        {activeStreams.length > 0 ? (
          <button type="button" onClick={() => chat.stop()}>
            Stop
          </button>
        ) : (
          <button disabled={!canSend}>Send</button>
        )}
      </form>
    </>
  );
}

function Turn({ turn, chat }) {
  return (
    <li data-role={turn.role} data-status={turn.status}>
      <span>{turn.error ?? turn.text}</span>
      {turn.status === "failed" && <button onClick={() => chat.retry(turn.key)}>Retry</button>}
      {turn.status === "complete" && (
        <button onClick={() => chat.regenerate(turn.key)}>Regenerate</button>
      )}
    </li>
  );
}
