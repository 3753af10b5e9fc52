// Requests that the far side refuses become dead letters: all that fit are dropped; one is looked at, mended and sent again.
import assert from "node:assert/strict";
import { test } from "node:test";
import { api, control, mqttClient, open, signIn, until, visit } from "./browser.mjs";

test("all that fit are dropped by their number", async (t) => {
  const device = await mqttClient(t, "press-2");
  const { page } = await open(t);
  await signIn(page, "ada");
  const letters = async (query = "") => (await api("GET", `/dead-letters${query}`)).total;
  const MANY = 120;
  await api("PUT", "/rules/cold", {
    sql: "SELECT temperature AS t, site FROM 'cold/+'",
    actions: [{ name: "ops", type: "http", connector: "ops", url: "/a", retry: { initial_backoff: "200ms", max_attempts: 1 } }],
  });
  for (let index = 0; index < MANY; index += 1) await device.publishAsync("cold/x", `{"temperature":${index},"site":"bad-${index}"}`, { qos: 1 });
  await until("all are dead letters", async () => (await letters("?rule=cold")) === MANY);

  await visit(page, "/dead-letters?rule=cold", "Dead letters");
  await page.getByText(`1 to 100 of ${MANY} dead letters`).waitFor();
  await page.getByRole("button", { name: "Redrive all that fit" }).click();
  await page.getByRole("dialog").getByText(`${MANY} dead letters`, { exact: true }).waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();

  await page.getByRole("button", { name: "Drop all that fit" }).click();
  const drop = page.getByRole("button", { name: `Drop ${MANY} dead letters` });
  assert.ok(await drop.isDisabled());
  await page.getByRole("dialog").getByRole("textbox").fill(String(MANY));
  await drop.click();
  await page.getByText(`${MANY} dead letters dropped`).waitFor();
  await page.getByText("None fits the filter.").waitFor();
  assert.equal(await letters("?rule=cold"), 0);
  assert.equal(await page.getByLabel("Rule", { exact: true }).inputValue(), "cold");
});

test("a dead letter is mended and sent again, others are sent again or dropped", async (t) => {
  const device = await mqttClient(t, "press-1");
  const { page } = await open(t);
  await signIn(page, "ada");
  const letters = async () => (await api("GET", "/dead-letters")).letters;
  for (const site of ["bad", "bad-2", "bad-3"]) await device.publishAsync("hall/oven", `{"temperature":71,"site":"${site}"}`, { qos: 1 });
  await until("three dead letters", async () => (await letters()).length === 3);

  await visit(page, "/dead-letters", "Dead letters");
  await page.getByRole("link", { name: "overheat/ops:1" }).click();
  await page.getByRole("heading", { level: 1, name: "overheat/ops:1" }).waitFor();
  await page.getByLabel("Last error").getByText("no such site").waitFor();
  await page.getByLabel("Payload", { exact: true }).getByText('"site": "bad"').waitFor();
  await page.getByLabel("body").getByText('"bad"').waitFor();

  await page.getByRole("button", { name: "Edit and redrive" }).click();
  const payload = page.getByRole("textbox", { name: "Payload" });
  assert.match(await payload.inputValue(), /"site": "bad"/);
  await payload.fill('{"temperature": 72, "site": "good"}');
  await page.getByRole("button", { name: "Send the mended message" }).click();
  await page.getByRole("heading", { level: 1, name: "Dead letters" }).waitFor();
  await until("the mended request is delivered", async () => {
    const bodies = JSON.parse(await control("bodies"));
    return bodies.some((body) => body.site === "good" && body.t === 72);
  });
  await page.getByRole("link", { name: "overheat/ops:1" }).waitFor({ state: "detached" });

  // Many: from now on the far side takes everything.
  await control("accept");
  await page.getByLabel("Pick overheat/ops:2").check();
  await page.getByRole("button", { name: "Redrive picked" }).click();
  await until("one letter is left", async () => (await letters()).length === 1);
  await page.getByRole("link", { name: "overheat/ops:2" }).waitFor({ state: "detached" });
  await page.getByLabel("Pick overheat/ops:3").check();
  await page.getByRole("button", { name: "Drop picked" }).click();
  await page.getByRole("dialog").getByRole("textbox").fill("1");
  await page.getByRole("button", { name: "Drop 1 dead letter" }).click();
  await page.getByText("No dead letters").waitFor();
  assert.deepEqual(await letters(), []);
});
