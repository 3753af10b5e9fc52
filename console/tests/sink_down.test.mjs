// A sink is down: the queue grows and says why; what waits can be dropped, by typing how much it is; the sink comes up, and
// the queue drains.
import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, api, control, mqttClient, open, screenshot, signIn, until, visit } from "./browser.mjs";

test("a queue grows, is purged, grows again and drains", async (t) => {
  const device = await mqttClient(t, "press-1");
  const { page } = await open(t);
  await signIn(page, "ada");
  const publish = async (number) => {
    for (let index = 0; index < number; index += 1) await device.publishAsync("hall/oven", `{"temperature":${70 + index}}`, { qos: 1 });
  };
  const figure = (label) => page.locator(".figure", { hasText: label }).locator(".figure-value");
  const shows = (label, wanted) => until(`${label} is ${wanted}`, async () => (await figure(label).innerText()).trim() === wanted);

  await publish(3);
  await visit(page, "/actions/overheat/ops", "overheat/ops");
  await shows("Waiting", "3");
  await page.getByLabel("State", { exact: true }).getByText("waiting").waitFor();
  await page.getByLabel("State", { exact: true }).getByText("can't be reached").waitFor();
  await page.getByRole("img", { name: /^Queue depth/ }).waitFor();

  await page.getByRole("button", { name: "Test connection" }).click();
  await page.locator(".connection-test").getByText("The far side can't be reached").waitFor();
  await page.locator(".stages li", { hasText: "refused" }).waitFor();

  // A purge leaves out what is in flight, as one of them is whenever the far side is looked at; paused, none is.
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByLabel("State", { exact: true }).getByText("paused by ada", { exact: true }).waitFor();
  // It names the number and has it typed; anything else than that number does nothing.
  const dialog = page.getByRole("dialog");
  await until("the last look at the far side has ended", async () => {
    await page.getByRole("button", { name: "Purge" }).click();
    const asked = await dialog.getByText(/^\d requests?$/).innerText();
    if (asked === "3 requests") return true;
    await dialog.getByRole("button", { name: "Cancel" }).click();
    return false;
  });
  const drop = dialog.getByRole("button", { name: "Drop 3 requests" });
  assert.ok(await drop.isDisabled());
  await dialog.getByRole("textbox").fill("33");
  assert.ok(await drop.isDisabled());
  await accessible(page, "the question before a purge");
  await screenshot(page, "purge-1440-light");
  await dialog.getByRole("textbox").fill("3");
  await drop.click();
  await dialog.waitFor({ state: "detached" });
  await shows("Waiting", "0");
  await page.getByRole("button", { name: "Resume" }).click();

  await publish(5);
  await shows("Waiting", "5");
  await page.getByRole("button", { name: "Drain now" }).click();
  // One of them may be on its way already.
  await page.getByText(/^[45] requests tried at once/).waitFor();
  await visit(page, "/actions", "Actions");
  await page.getByRole("row", { name: /overheat\/ops/ }).getByText("waiting").waitFor();
  await visit(page, "/", "Home");
  await until("Home says how much waits", async () => /5 wait/.test(await page.locator(".figure", { hasText: "Queued" }).innerText()));

  await control("open");
  await visit(page, "/actions/overheat/ops", "overheat/ops");
  await shows("Waiting", "0");
  await shows("Delivered", "5");
  await page.getByLabel("State", { exact: true }).getByText("running").waitFor();
  assert.equal(JSON.parse(await control("bodies")).length, 5);

  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByLabel("State", { exact: true }).getByText("paused by ada", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  await until("the action is resumed", async () => (await api("GET", "/actions/overheat/ops")).paused === null);
});
