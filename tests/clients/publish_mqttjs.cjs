// MQTT.js as a device: frames from files at QoS 1, then the verdict. Arguments: port, short id, 3 or 5, last seq, files.
const { readFileSync } = require('node:fs');
const mqtt = require('mqtt');

const [port, device, version, last, ...files] = process.argv.slice(2);
const client = mqtt.connect({
  host: '127.0.0.1', port: Number(port), clientId: 'js', protocolVersion: version === '5' ? 5 : 4, reconnectPeriod: 0,
});
const fail = (why) => { console.log(`failed: ${why}`); process.exit(1); };
setTimeout(() => fail('no verdict in time'), 15000).unref();
client.on('error', fail);
let published = false;
let ackedTo = null;
const endWhenDone = () => {
  if (published && ackedTo === Number(last)) {
    console.log(`verdict seq ${last}`);
    client.end();
  }
};
client.on('message', (_topic, payload) => {
  ackedTo = JSON.parse(payload).acked_to?.seq;
  endWhenDone();
});
client.on('connect', async () => {
  await client.subscribeAsync(`v1/d/${device}/verdict`, { qos: 1 });
  for (const file of files) await client.publishAsync(`v1/d/${device}/frames`, readFileSync(file), { qos: 1 });
  published = true;
  endWhenDone();
});
