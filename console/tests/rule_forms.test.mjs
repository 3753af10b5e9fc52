// The editor beside its statement: examples, forms of actions, what is taken out and comes back, copies, names that are taken, removal.
import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, api, mqttClient, open, screenshot, signIn, until, visit } from "./browser.mjs";

const log = (name) => ({ name, type: "log" });

test("every example is right, and tried at once", async (t) => {
  const { page } = await open(t);
  await signIn(page, "ada");
  await visit(page, "/new-rule", "New rule");
  const examples = page.getByLabel("Begin with an example");
  await examples.waitFor();
  const titles = (await examples.getByRole("option").allInnerTexts()).slice(1);
  assert.ok(titles.length >= 4);
  for (const title of titles) {
    await examples.selectOption(title);
    await page.locator(".finding.fine").waitFor();
    await page.locator(".panel.result").getByText("Matches", { exact: true }).waitFor();
    assert.equal(await page.locator(".action-form .finding").count(), 0, title);
  }
  // What was written before comes back.
  const sql = page.getByRole("textbox", { name: "SQL statement" });
  const last = await sql.innerText();
  await examples.selectOption(titles[0]);
  await until("another example stands there", async () => (await sql.innerText()) !== last);
  await page.getByRole("button", { name: "Undo" }).last().click();
  await until("the one before stands there again", async () => (await sql.innerText()) === last);
});

test("a form writes what its fields say, and loses nothing on the way", async (t) => {
  // A rule that is wrong is refused where it is tried.
  const { page } = await open(t, { refusals: [401, 422] });
  await signIn(page, "ada");
  await api("PUT", "/rules/forms", {
    sql: "SELECT * FROM 'hall/+'",
    actions: [{ name: "first", type: "log", message: "one" }, { name: "second", type: "http", connector: "ops", url: "/a", headers: { "X-Site": "hall" } }],
  });
  await visit(page, "/rules/forms", "forms");
  const second = page.getByRole("group", { name: "Action 2" });
  assert.equal(await second.getByLabel("Headers: value 1").inputValue(), "hall");

  // Another kind and back.
  await second.getByRole("combobox", { name: "Type", exact: true }).selectOption("republish");
  await second.getByLabel("Topic", { exact: true }).fill("out/x");
  await second.getByRole("combobox", { name: "Type", exact: true }).selectOption("http");
  assert.equal(await second.getByLabel("URL").inputValue(), "/a");
  await second.getByRole("combobox", { name: "Type", exact: true }).selectOption("republish");
  assert.equal(await second.getByLabel("Topic", { exact: true }).inputValue(), "out/x");
  await second.getByRole("combobox", { name: "Type", exact: true }).selectOption("http");

  // Taken out and put back: the others keep what is theirs.
  await page.getByRole("button", { name: "Remove action first" }).click();
  const only = page.getByRole("group", { name: "Action 1" });
  assert.equal(await only.getByLabel("Headers: value 1").inputValue(), "hall");
  await page.getByRole("button", { name: "Undo" }).click();
  assert.equal(await page.getByRole("group", { name: "Action 1" }).getByRole("textbox", { name: "Message" }).inputValue(), "one");
  assert.equal(await second.getByLabel("Headers: value 1").inputValue(), "hall");

  await second.getByRole("button", { name: "Add to Headers" }).click();
  await second.getByLabel("Headers: name 2").fill("X-Topic");
  await second.getByLabel("Headers: value 2").fill("${topic()}");
  await second.getByText("More:", { exact: false }).first().click();
  await second.getByText("Retry policy.").click();
  await second.getByLabel("Max attempts").fill("3");
  await second.getByLabel("Retry on").fill("404, 410");
  await page.getByRole("button", { name: "Add an error action" }).click();
  await page.getByRole("group", { name: "Error action" }).getByLabel("Topic", { exact: true }).fill("errors/forms");
  await page.getByLabel("Description").fill("007");
  await page.getByLabel("Tags").fill("plant, hall");
  await page.locator(".finding.fine").waitFor();
  await accessible(page, "the forms");
  await screenshot(page, "forms-1440-light");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("version 2 by ada").waitFor();
  const { definition } = await api("GET", "/rules/forms");
  assert.deepEqual(definition.actions[1], {
    name: "second", type: "http", connector: "ops", url: "/a", headers: { "X-Site": "hall", "X-Topic": "${topic()}" }, retry: { max_attempts: 3 }, retry_on: [404, 410],
  });
  assert.deepEqual(definition.error_action, { type: "republish", topic: "errors/forms" });
  assert.deepEqual([definition.description, definition.tags], ["007", ["plant", "hall"]]);

  // What the gateway doesn't take is said where it is written, and keeps the rule from being saved.
  await second.getByLabel("Max attempts").fill("many");
  await second.locator(".finding.error").waitFor();
  assert.ok(await page.getByRole("button", { name: "Save", exact: true }).isDisabled());
});

test("while messages keep coming they are counted, and the list stands still for who chooses by keyboard", async (t) => {
  const device = await mqttClient(t, "press-1");
  const { page } = await open(t);
  await signIn(page, "ada");
  await visit(page, "/rules/overheat", "overheat");
  await page.locator(".live-mark.open").waitFor();
  let number = 0;
  // More often than anything here rests.
  const sender = setInterval(() => device.publish("hall/oven", `{"temperature":${number++ % 2 ? 70 : 20}}`), 50);
  t.after(() => clearInterval(sender));
  await page.getByText(/matched [1-9]\d* of the last/).waitFor();
  const messages = page.locator(".freeze");
  await messages.nth(7).waitFor();
  await page.getByLabel("only this rule's topics").focus();
  for (let index = 0; index < 4; index += 1) await page.keyboard.press("Tab");
  const focused = () => page.evaluate(() => document.activeElement?.className);
  assert.equal(await focused(), "freeze", "the focus is on a message");
  const text = await page.evaluate(() => document.activeElement?.textContent);
  const before = number;
  await until("more messages came", async () => number > before + 20);
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), text, "the message under the focus is the same");
  await page.keyboard.press("Enter");
  assert.ok(text.includes((await page.getByRole("textbox", { name: "Payload" }).inputValue()).replace(/\s/g, "")));
});

test("text is typed over a selection without a style that the page refuses", async (t) => {
  const { page } = await open(t);
  await signIn(page, "ada");
  await visit(page, "/new-rule", "New rule");
  const sql = page.getByRole("textbox", { name: "SQL statement" });
  await sql.click();
  await page.keyboard.press("Control+Home");
  await page.keyboard.press("Shift+End");
  await page.keyboard.type("x");
  await page.keyboard.press("Control+Home");
  await page.keyboard.press("Shift+End");
  await page.keyboard.type("(");
  await until("a bracket is put around the selection", async () => /^\(x\)\n/.test(await sql.innerText()));
  await page.keyboard.press("Control+z");
  await page.keyboard.press("Control+z");
  await until("what was there is back", async () => /^SELECT \*\n/.test(await sql.innerText()));
});

test("a rule is copied, a name that is taken is said to be, and a rule is removed", async (t) => {
  const { page } = await open(t, { refusals: [401, 404, 409, 412] });
  await signIn(page, "ada");
  await api("PUT", "/rules/old", { sql: "SELECT a\nFROM 'hall/+'", description: "the old one", actions: [log("line")] });
  await api("PUT", "/rules/old/cases", { cases: [{ id: "one", rule: "old", topic: "hall/x", payload: { a: 1 }, expect: { a: 1 } }] });
  await visit(page, "/rules/old", "old");
  await page.getByRole("link", { name: "Make a copy" }).click();
  await page.getByRole("heading", { level: 1, name: "New rule" }).waitFor();
  await page.getByLabel("Name of the rule").fill("old");
  await page.locator(".finding.fine").waitFor();
  await page.locator(".cases").getByText("passes").waitFor();
  await page.getByRole("button", { name: "Save", exact: true }).click();
  const taken = page.getByRole("dialog", { name: "The name is taken" });
  await taken.getByText("There is a rule old already").waitFor();
  await taken.getByRole("button", { name: "Choose another name" }).click();
  await page.getByLabel("Name of the rule").fill("new");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("version 1 by ada").waitFor();
  const copy = await api("GET", "/rules/new");
  assert.deepEqual([copy.definition.description, copy.definition.sql], ["the old one", "SELECT a\nFROM 'hall/+'"]);
  assert.deepEqual((await api("GET", "/rules/new/cases")).cases.map((one) => [one.id, one.rule]), [["one", "new"]]);

  // The rule of a file is copied, too, and its name can't be had.
  await visit(page, "/new-rule?from=overheat", "New rule");
  await page.getByLabel("Name of the rule").fill("overheat");
  await page.locator(".finding.fine").waitFor();
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await taken.getByText("overheat.toml").waitFor();
  assert.equal(await taken.getByRole("button", { name: "Save mine over it" }).count(), 0, "the rule of a file stays");
  await taken.getByRole("button", { name: "Choose another name" }).click();
  await page.getByLabel("Name of the rule").fill("");

  await visit(page, "/rules/new", "new");
  await page.getByRole("button", { name: "Remove…" }).click();
  const dialog = page.getByRole("dialog", { name: "Remove new?" });
  const remove = dialog.getByRole("button", { name: "Remove the rule" });
  await dialog.getByRole("textbox").fill("old");
  assert.ok(await remove.isDisabled());
  await accessible(page, "the question before a removal");
  await dialog.getByRole("textbox").fill("new");
  await remove.click();
  await page.getByRole("heading", { level: 1, name: "Rules" }).waitFor();
  await assert.rejects(api("GET", "/rules/new"));
  await page.getByRole("link", { name: "old" }).waitFor();

  // Somebody else removes a rule that is being changed.
  await visit(page, "/rules/old", "old");
  await page.getByLabel("Description").fill("changed");
  await page.locator(".finding.fine").waitFor();
  await api("DELETE", "/rules/old");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByRole("dialog", { name: "The rule is gone" }).getByRole("button", { name: "Make it anew" }).click();
  await until("the rule is there again", async () => (await api("GET", "/rules/old").catch(() => null))?.definition.description === "changed");
});

test("a rule that was changed while the gateway was out of reach is not overwritten unseen", async (t) => {
  const { context, page } = await open(t, { refusals: [401, 412] });
  await signIn(page, "ada");
  const rule = (description) => ({ sql: "SELECT a\nFROM 'hall/+'", description, actions: [log("line")] });
  await api("PUT", "/rules/shared", rule("first"));
  await visit(page, "/rules/shared", "shared");
  await page.getByLabel("Description").fill("mine");
  await page.locator(".finding.fine").waitFor();
  page.isCutOff = true;
  await context.setOffline(true);
  await page.getByText("Disconnected.").waitFor();
  await api("PUT", "/rules/shared", rule("theirs"));
  await context.setOffline(false);
  await page.getByText("Disconnected.").waitFor({ state: "detached" });
  assert.equal(await page.getByLabel("Description").inputValue(), "mine", "what was being written is there");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  const dialog = page.getByRole("dialog", { name: "Somebody was faster" });
  await dialog.locator(".diff-line.removed", { hasText: "theirs" }).waitFor();
  await dialog.getByRole("button", { name: "Go on editing" }).click();
  assert.equal((await api("GET", "/rules/shared")).definition.description, "theirs");
});
