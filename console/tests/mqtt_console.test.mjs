// The MQTT console: subscribe, publish with properties, keep a set, stay quick with ten thousand messages, pause.
import assert from "node:assert/strict";
import { test } from "node:test";
import { mqttClient, open, signIn, until, visit } from "./browser.mjs";

/** As many as the page keeps. */
const MANY = 10_000;

/** Messages on their way at a time. */
const BATCH = 500;

test("messages go out and come in", async (t) => {
  const device = await mqttClient(t, "listener-1");
  const received = [];
  device.on("message", (topic, payload, packet) => received.push({ topic, payload: payload.toString(), packet }));
  await device.subscribeAsync("out/#", { qos: 1 });
  const { page } = await open(t);
  await signIn(page, "ada");
  await visit(page, "/mqtt", "MQTT console");
  await page.getByRole("button", { name: "Connect", exact: true }).click();
  await page.getByText("connected", { exact: true }).waitFor();

  await page.getByLabel("Topic", { exact: true }).fill("out/x");
  await page.getByLabel("Payload", { exact: true }).fill('{"on":true}');
  await page.locator(".publish-foot").getByLabel("QoS").selectOption("1");
  await page.getByText("MQTT 5 properties").click();
  await page.getByLabel("Content Type").fill("application/json");
  await page.getByRole("button", { name: "User Property" }).click();
  await page.getByLabel("Name of User Property 1").fill("site");
  await page.getByLabel("Value of User Property 1").fill("hall");
  await page.getByRole("button", { name: "Publish", exact: true }).click();
  await until("the message is received", async () => received.length === 1);
  assert.equal(received[0].payload, '{"on":true}');
  assert.equal(received[0].packet.properties.contentType, "application/json");
  assert.deepEqual({ ...received[0].packet.properties.userProperties }, { site: "hall" });

  await page.getByLabel("Topic Filter").fill("in/#");
  await page.getByRole("button", { name: "Subscribe", exact: true }).click();
  await page.getByLabel("Name of the set").fill("hall");
  await page.getByRole("button", { name: "Save set" }).click();
  await page.reload();
  await page.getByRole("button", { name: "Load hall" }).click();
  assert.equal(await page.getByLabel("Topic", { exact: true }).inputValue(), "out/x");
  await page.getByText("in/#", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Connect", exact: true }).click();
  await page.getByText("connected", { exact: true }).waitFor();

  const shown = async () => Number((await page.locator(".message-count").innerText()).replace(/\D/g, ""));
  await until("the subscription holds", async () => {
    await device.publishAsync("in/first", "1", { qos: 1 });
    return (await shown()) > 0;
  });
  const before = await until("what was on its way is there", async () => {
    const first = await shown();
    return first > 0 && first;
  });
  for (let sent = 0; sent < MANY; sent += BATCH) {
    await Promise.all(Array.from({ length: BATCH }, (_, index) => device.publishAsync(`in/${sent + index}`, `{"number":${sent + index}}`, { qos: 1 })));
    await until(`${sent + BATCH} messages`, async () => (await shown()) >= before + sent + BATCH);
  }
  assert.ok((await page.locator(".virtual li").count()) < 60, "only the rows that are seen are in the page");
  await page.locator(".virtual li", { hasText: `in/${MANY - 1}` }).waitFor();

  await page.getByRole("button", { name: "Pause" }).click();
  await device.publishAsync("in/later", "2", { qos: 1 });
  await page.getByText("paused, 1 new").waitFor();
  assert.equal(await page.locator(".virtual li", { hasText: "in/later" }).count(), 0);
  await page.getByRole("button", { name: "Resume" }).click();
  await page.locator(".virtual li", { hasText: "in/later" }).waitFor();
});

test("the client outlives a look at another page, and what it received can be sent again", async (t) => {
  const device = await mqttClient(t, "listener-2");
  const received = [];
  device.on("message", (topic, payload, packet) => received.push({ topic, payload, packet }));
  const { page } = await open(t);
  await signIn(page, "ada");
  await visit(page, "/mqtt", "MQTT console");
  await page.getByRole("button", { name: "Connect", exact: true }).click();
  await page.getByText("connected", { exact: true }).waitFor();
  await page.getByLabel("Topic Filter").fill("raw/#");
  await page.getByRole("button", { name: "Subscribe", exact: true }).click();
  await page.getByLabel("Topic", { exact: true }).fill("half/written");
  await until("the subscription holds", async () => {
    await device.publishAsync("raw/first", "1", { qos: 1 });
    return (await page.locator(".virtual li").count()) > 0;
  });

  // Away and back: connected, subscribed, and what was half written is there; what came meanwhile, too.
  await page.getByRole("link", { name: "Rules", exact: true }).click();
  await page.getByRole("heading", { level: 1, name: "Rules" }).waitFor();
  const bytes = Uint8Array.of(0, 1, 254, 255);
  await device.publishAsync("raw/binary", Buffer.from(bytes), { qos: 1, properties: { contentType: "application/octet-stream", userProperties: { site: "hall" } } });
  // Cut within a character: text stays text.
  await device.publishAsync("raw/long", "x".repeat(64 * 1024 - 1) + "ü".repeat(10), { qos: 1 });
  await page.goBack();
  await page.getByText("connected", { exact: true }).waitFor();
  assert.equal(await page.getByLabel("Topic", { exact: true }).inputValue(), "half/written");
  await page.locator(".virtual li", { hasText: "raw/long" }).locator("button").click();
  await page.locator(".picked-message").getByText("the first 64.0 KiB of it").waitFor();
  assert.match(await page.locator(".picked-message pre").innerText(), /^x+$/);
  assert.ok(await page.getByRole("button", { name: "Publish one like it" }).isDisabled(), "half a payload isn't published");

  await page.getByPlaceholder("Only messages with").fill("binary");
  await page.locator(".virtual li", { hasText: "raw/long" }).waitFor({ state: "detached" });
  await page.locator(".virtual li", { hasText: "raw/binary" }).locator("button").click();
  await page.getByRole("button", { name: "Publish one like it" }).click();
  await page.getByLabel("Topic", { exact: true }).fill("again/binary");
  await page.locator(".publish-foot").getByLabel("QoS").selectOption("1");
  await device.subscribeAsync("again/#", { qos: 1 });
  await page.getByRole("button", { name: "Publish", exact: true }).click();
  await until("it is received", async () => received.length === 1);
  assert.deepEqual(new Uint8Array(received[0].payload), bytes);
  assert.equal(received[0].packet.properties.contentType, "application/octet-stream");
  assert.deepEqual({ ...received[0].packet.properties.userProperties }, { site: "hall" });
  await page.getByText("Published to again/binary").waitFor();

  // Who signs in next finds nothing of it.
  await page.getByRole("button", { name: "Sign out" }).click();
  await signIn(page, "otto");
  await visit(page, "/mqtt", "MQTT console");
  await page.getByText("not connected").waitFor();
  await page.getByText("No messages yet").waitFor();
  assert.equal(await page.getByLabel("Topic", { exact: true }).inputValue(), "");
});

test("a clock that differs is told of", async (t) => {
  const { page } = await open(t);
  await page.addInitScript(() => {
    const now = Date.now;
    Date.now = () => now() - 600_000;
  });
  await signIn(page, "ada");
  await page.getByText("The clocks differ.").waitFor();
  // Less than what it is by the time that the answer was on its way, and its fraction of a second.
  await page.getByText(/gateway's is (10 min [01] s|9 min 5\d s) ahead of/).waitFor();
});

test("a gateway that does not answer is told of, and looked for", async (t) => {
  const { context, page } = await open(t);
  await signIn(page, "ada");
  await page.getByText("All is well").waitFor();
  page.isCutOff = true;
  await context.setOffline(true);
  await page.getByText("Disconnected.").waitFor();
  await page.getByText("Not known: the gateway doesn't answer").waitFor();
  await page.locator(".health.good").waitFor({ state: "detached" });
  await page.getByRole("link", { name: "Rules" }).click();
  await page.getByText("Disconnected.").waitFor();
  await context.setOffline(false);
  await page.getByText("Disconnected.").waitFor({ state: "detached" });
  await page.getByRole("heading", { level: 1, name: "Rules" }).waitFor();
  await page.getByRole("link", { name: "overheat" }).waitFor();
});
