// Emmett on PostgreSQL, by its Node packages: `… FOLDER URL SECONDS`; prints JSON. FOLDER has `node_modules`; what the
// work is, `work.py` says, and hands on in the environment.
import { createRequire } from 'node:module';

const [folder, url, secondsText] = process.argv.slice(2);
const seconds = Number(secondsText);
const { streams, waiting, data, event, longStream, longStreams, page, readStream, readFeed } = JSON.parse(process.env.WORK);

const require = createRequire(`${folder}/package.json`);
const { getPostgreSQLEventStore, readMessagesBatch } = require('@event-driven-io/emmett-postgresql');
const { dumbo } = require('@event-driven-io/dumbo');
const pg = require('pg');

const pool = new pg.Pool({ connectionString: url, max: 16 });
const store = getPostgreSQLEventStore(url, { connectionOptions: { pool } });
const now = () => performance.now() / 1000;
const one = () => ({ type: event, data });
const told = {};

const client = async (number, clients, until) => {
  for (let done = 0, version = 0n; ; version += 1n) {
    for (let stream = number; stream < streams; stream += clients) {
      if (now() >= until) return done;
      const expectedStreamVersion = version === 0n ? 'STREAM_DOES_NOT_EXIST' : version;
      await store.appendToStream(`order-${clients}-${stream}`, [one()], { expectedStreamVersion });
      done += 1;
    }
  }
};

const whole = (events) => {
  for (const found of events) if (found.data.text !== data.text) throw new Error('an event came without its payload');
  return events.length;
};

const rate = async (work) => {
  const begin = now();
  let done = 0;
  while (now() - begin < seconds) done += await work();
  return done / (now() - begin);
};

await store.schema.migrate();
for (const [kind, clients] of Object.entries(waiting)) {
  const begin = now();
  const done = await Promise.all([...Array(clients).keys()].map((number) => client(number, clients, begin + seconds)));
  told[kind] = done.reduce((sum, count) => sum + count, 0) / (now() - begin);
}
for (let stream = 0; stream < longStreams; stream += 1) {
  await store.appendToStream(`long-${stream}`, Array.from({ length: longStream }, one));
}
told[readStream] = await rate(async () => whole((await store.readStream('long-0')).events));

const reading = dumbo({ connectionString: url, pool });
told[readFeed] = await rate(async () => {
  let after = 0n;
  let read = 0;
  for (;;) {
    const batch = await readMessagesBatch(reading.execute, { after, batchSize: page });
    if (batch.messages.length === 0) return read;
    read += whole(batch.messages);
    after = batch.currentGlobalPosition;
  }
});
await store.close();
await pool.end();
console.log(JSON.stringify(told));
