// Client identifiers, topics and payloads that look like pages are shown as text and nothing else.
import assert from "node:assert/strict";
import { test } from "node:test";
import { api, mqttClient, open, signIn, until, visit } from "./browser.mjs";

const EVIL = `<img src=x onerror="window.owned=1"><script>window.owned=1</script><svg onload=window.owned=1>`;
const TOPIC = `hall/${EVIL.replaceAll("/", "|").replaceAll("+", "").replaceAll("#", "")}`;

test("what devices send is text", async (t) => {
  const device = await mqttClient(t, EVIL);
  const { page } = await open(t);
  await signIn(page, "ada");
  const clean = async (where) => {
    assert.equal(await page.evaluate(() => window.owned), undefined, `${where} ran what a device sent`);
    assert.equal(await page.locator("main img, main script, main svg[onload]").count(), 0, `${where} took what a device sent for markup`);
  };
  const send = () =>
    device.publishAsync(TOPIC, JSON.stringify({ temperature: 71, site: EVIL, [EVIL]: EVIL }), {
      qos: 1,
      properties: { contentType: EVIL, userProperties: { [EVIL]: EVIL } },
    });

  await visit(page, "/rules/overheat", "overheat");
  await page.locator(".live-mark.open").waitFor();
  await send();
  await page.locator(".freeze", { hasText: "onerror" }).first().click();
  assert.equal(await page.getByLabel("Client identifier").inputValue(), EVIL);
  await page.locator(".panel.result", { hasText: "onerror" }).waitFor();
  await clean("the editor");

  const sql = page.getByRole("textbox", { name: "SQL statement" });
  await sql.click();
  await page.keyboard.press("Control+Home");
  await page.keyboard.type("SELECT ");
  await page.keyboard.press("Control+Space");
  await page.locator(".cm-tooltip-autocomplete").getByText("onerror").first().waitFor();
  await clean("the list of completions");

  await until("a dead letter", async () => (await api("GET", "/dead-letters")).letters.length > 0);
  await visit(page, "/dead-letters", "Dead letters");
  await page.locator("tbody", { hasText: "onerror" }).waitFor();
  await clean("the list of dead letters");
  await visit(page, "/dead-letters/overheat/ops/1", "overheat/ops:1");
  await page.locator(".facts", { hasText: "onerror" }).first().waitFor();
  await clean("a dead letter");

  await visit(page, "/mqtt", "MQTT console");
  await page.getByRole("button", { name: "Connect", exact: true }).click();
  await page.getByText("connected", { exact: true }).waitFor();
  await page.getByLabel("Topic Filter").fill("hall/#");
  await page.getByRole("button", { name: "Subscribe", exact: true }).click();
  await until("the message is there", async () => {
    await send();
    return (await page.locator(".virtual li").count()) > 0;
  });
  await page.locator(".virtual li button").first().click();
  await page.locator(".picked-message", { hasText: "onerror" }).waitFor();
  await clean("the MQTT console");
});
