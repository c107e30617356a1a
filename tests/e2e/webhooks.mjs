// A receiver of webhooks with the official Node SDK. Prints its port, then one line of JSON per request.
import http from 'node:http';
import Pusher from 'pusher';

const [key, secret] = process.argv.slice(2);
const pusher = new Pusher({ appId: '1', key, secret });

const server = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const webhook = pusher.webhook({ headers: request.headers, rawBody: Buffer.concat(chunks).toString() });
  const valid = webhook.isValid();
  console.log(
    JSON.stringify({
      valid,
      contentType: webhook.isContentTypeValid(),
      events: valid ? webhook.getEvents() : [],
      time: valid ? webhook.getTime().getTime() : 0,
    }),
  );
  response.writeHead(valid ? 200 : 401).end();
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
