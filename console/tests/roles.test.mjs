// Roles: nobody is shown a button that would be refused, and no page asks for what its reader may not have.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { api, open, screenshot, signIn, visit } from "./browser.mjs";

const PAGES = [
  ["/", "Home"],
  ["/rules", "Rules"],
  ["/rules/overheat", "overheat"],
  ["/rules/comfort", "comfort"],
  ["/actions", "Actions"],
  ["/actions/overheat/ops", "overheat/ops"],
  ["/dead-letters", "Dead letters"],
];

/** Buttons that only look, or change nothing but the page. */
const LOOKS = /^(Pause|Resume|Copy as…|Look again|Show more|Dark colours|Light colours|Sign out|Open the navigation|Close)/;

before(() => api("PUT", "/rules/comfort", { sql: "SELECT * FROM 'hall/+'", actions: [{ name: "log", type: "log" }] }));

test("a viewer is shown no button that would be refused", async (t) => {
  const { page } = await open(t, { refusals: [401] });
  await signIn(page, "vera");
  for (const [place, title] of PAGES) {
    await visit(page, place, title);
    await page.locator("main .state.busy").first().waitFor({ state: "detached" });
    const names = await page.getByRole("button").allInnerTexts();
    assert.deepEqual(names.map((name) => name.trim()).filter((name) => name && !LOOKS.test(name)), [], `buttons of ${place}`);
    assert.equal(await page.getByRole("switch").count(), 0, `switches of ${place}`);
  }
  assert.equal(await page.getByRole("link", { name: "MQTT console" }).count(), 0);
  assert.equal(await page.getByRole("link", { name: "New rule" }).count(), 0);
  assert.deepEqual(page.refused.filter((one) => one.startsWith("403")), [], "nothing was asked for in vain");
});

test("a page that isn't for one's role says so", async (t) => {
  const { page } = await open(t, { refusals: [401, 403] });
  await signIn(page, "vera");
  await visit(page, "/dead-letters/overheat/ops/1", "overheat/ops:1");
  await page.getByText("This is not for your role").waitFor();
  await screenshot(page, "denied-1440-light");
});

test("an operator writes rules and stops actions", async (t) => {
  const { page } = await open(t);
  await signIn(page, "otto");
  await visit(page, "/rules", "Rules");
  await page.getByRole("link", { name: "New rule" }).waitFor();
  await page.getByRole("switch", { name: "comfort runs" }).waitFor();
  await visit(page, "/actions/overheat/ops", "overheat/ops");
  await page.getByRole("button", { name: "Pause" }).waitFor();
  await page.getByRole("link", { name: "MQTT console" }).waitFor();
  // A rule of a file is tried and not changed.
  await visit(page, "/rules/overheat", "overheat");
  await page.getByText("belongs to the file").waitFor();
  await page.getByText("overheat.toml").waitFor();
  assert.equal(await page.getByRole("button", { name: "Save", exact: true }).count(), 0);
  assert.equal(await page.getByRole("button", { name: "Add action" }).count(), 0);
});
