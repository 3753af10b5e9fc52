// What an MQTT.js client sees of the broker.
//
// usage: node mqttjs_checks.cjs PATH_OF_MQTT_JS PORT VERSION
//
// VERSION is 4 or 5. The environment may name another SCHEME than mqtt (mqtts, ws, wss), the PEM file of the authority (CA) and of
// the client's own certificate and key (CERT, KEY). Prints the name of each check that passed, then "all passed"; any failure ends with status 1.

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { readFileSync } = require("node:fs");

const [library, port, version] = process.argv.slice(2);
const mqtt = require(library);
const protocolVersion = Number(version);
const PATIENCE_MS = 20_000;
const { SCHEME = "mqtt", CA, CERT, KEY } = process.env;
const path = SCHEME.startsWith("ws") ? "/mqtt" : "";
const tls = CA ? { ca: readFileSync(CA) } : {};
if (CERT) Object.assign(tls, { cert: readFileSync(CERT), key: readFileSync(KEY) });

/** A connected client with a queue of its messages. */
async function connect(clientId, options = {}) {
  const client = mqtt.connect(`${SCHEME}://localhost:${port}${path}`, {
    clientId, protocolVersion, reconnectPeriod: 0, clean: true, ...tls, ...options,
  });
  const queue = [];
  const waiting = [];
  client.on("message", (topic, payload, packet) => {
    const message = { topic, payload, packet };
    if (waiting.length > 0) waiting.shift()(message); else queue.push(message);
  });
  client.next = () => queue.length > 0
    ? Promise.resolve(queue.shift())
    : new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${clientId}: no message`)), PATIENCE_MS);
      waiting.push((message) => { clearTimeout(timer); resolve(message); });
    });
  const [connack] = await once(client, "connect", { signal: AbortSignal.timeout(PATIENCE_MS) });
  client.sessionPresent = connack.sessionPresent;
  return client;
}

/** What keeps a session after its connection. */
const kept = protocolVersion === 5
  ? { clean: false, properties: { sessionExpiryInterval: 60 } }
  : { clean: false };

const checks = {
  async everyQos() {
    const subscriber = await connect("subscriber");
    const publisher = await connect("publisher");
    for (const qos of [0, 1, 2]) {
      const grants = await subscriber.subscribeAsync(`qos/${qos}`, { qos });
      assert.equal(grants[0].qos, qos);
      for (let number = 0; number < 100; number += 1) {
        await publisher.publishAsync(`qos/${qos}`, String(number), { qos });
      }
      for (let number = 0; number < 100; number += 1) {
        const { topic, payload, packet } = await subscriber.next();
        assert.deepEqual([topic, payload.toString(), packet.qos], [`qos/${qos}`, String(number), qos]);
      }
    }
    await Promise.all([subscriber.endAsync(), publisher.endAsync()]);
  },

  async retained() {
    const publisher = await connect("publisher");
    await publisher.publishAsync("kept/x", "kept", { qos: 1, retain: true });
    const subscriber = await connect("subscriber");
    await subscriber.subscribeAsync("kept/#", { qos: 1 });
    const { payload, packet } = await subscriber.next();
    assert.deepEqual([payload.toString(), packet.retain], ["kept", true]);
    await publisher.publishAsync("kept/x", "", { qos: 1, retain: true });
    assert.equal((await subscriber.next()).payload.length, 0);
    await Promise.all([subscriber.endAsync(), publisher.endAsync()]);
  },

  async will() {
    const watcher = await connect("watcher");
    await watcher.subscribeAsync("will/#", { qos: 1 });
    const mortal = await connect("mortal", { will: { topic: "will/mortal", payload: "gone", qos: 1 } });
    mortal.on("error", () => {});
    mortal.stream.destroy();
    const { topic, payload } = await watcher.next();
    assert.deepEqual([topic, payload.toString()], ["will/mortal", "gone"]);
    await watcher.endAsync();
  },

  async keptSession() {
    // Not mixed: the library hands a message of QoS 2 on at PUBREL, later than one of QoS 1 that came after it.
    const qos = (number) => (number < 25 ? 1 : 2);
    let subscriber = await connect("kept session", kept);
    assert.equal(subscriber.sessionPresent, false);
    await subscriber.subscribeAsync("away/#", { qos: 2 });
    await subscriber.endAsync();
    const publisher = await connect("publisher");
    for (let number = 0; number < 50; number += 1) {
      await publisher.publishAsync("away/x", String(number), { qos: qos(number) });
    }
    subscriber = await connect("kept session", kept);
    assert.equal(subscriber.sessionPresent, true);
    for (let number = 0; number < 50; number += 1) {
      const { payload, packet } = await subscriber.next();
      assert.deepEqual([payload.toString(), packet.qos], [String(number), qos(number)]);
    }
    await Promise.all([subscriber.endAsync(), publisher.endAsync()]);
    await (await connect("kept session")).endAsync();
  },

  async properties() {
    if (protocolVersion !== 5) return;
    const client = await connect("properties", { properties: { topicAliasMaximum: 5 }, autoUseTopicAlias: true });
    await client.subscribeAsync("properties/#", { qos: 1, properties: { subscriptionIdentifier: 7 } });
    for (let round = 0; round < 3; round += 1) {
      await client.publishAsync("properties/x", "{}", {
        qos: 1,
        properties: {
          contentType: "application/json",
          correlationData: Buffer.from([0, 255]),
          responseTopic: "answers",
          userProperties: { a: ["1", "2"] },
        },
      });
      const { topic, packet: { properties } } = await client.next();
      assert.equal(topic, "properties/x");
      assert.equal(properties.contentType, "application/json");
      assert.equal(properties.responseTopic, "answers");
      assert.deepEqual(properties.correlationData, Buffer.from([0, 255]));
      assert.deepEqual({ ...properties.userProperties }, { a: ["1", "2"] });
      assert.equal(properties.subscriptionIdentifier, 7);
    }
    await client.endAsync();
  },
};

(async () => {
  for (const [name, check] of Object.entries(checks)) {
    await check();
    console.log(name);
  }
  console.log("all passed");
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
