// The first run: a setup token makes the first administrator, who is signed in at once; then names and passwords do.
import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, fits, gateway, NARROW, open, PASSWORD, screenshot, WIDE } from "./browser.mjs";

test("a setup token makes the first administrator, and is good once", async (t) => {
  const { page } = await open(t, { refusals: [401, 403, 409, 422] });
  await page.goto(`${gateway.console}/`);
  await page.getByRole("heading", { name: "Welcome" }).waitFor();
  await accessible(page, "the first run");
  for (const [width, viewport] of [["1440", WIDE], ["360", NARROW]]) {
    await page.setViewportSize(viewport);
    await fits(page, "the first run");
    for (const scheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: scheme });
      await screenshot(page, `setup-${width}-${scheme}`);
    }
  }
  await page.setViewportSize(WIDE);

  const make = page.getByRole("button", { name: "Make the first administrator" });
  await page.getByLabel("Your name").fill("ada");
  await page.getByLabel("Setup token").fill("tds_wrong");
  await page.getByLabel("New password").fill("short");
  await page.getByLabel("The password again").fill("short");
  assert.ok(await make.isDisabled(), "a short password is not accepted");
  await page.getByLabel("New password").fill(PASSWORD);
  await page.getByLabel("The password again").fill(`${PASSWORD}!`);
  assert.ok(await make.isDisabled(), "two different passwords are not accepted");
  await page.getByText("The two are not the same").waitFor();
  await page.getByLabel("The password again").fill(PASSWORD);
  await make.click();
  await page.getByRole("alert").locator(".complaint").waitFor();

  await page.getByLabel("Setup token").fill(gateway.setupToken);
  await make.click();
  await page.getByRole("heading", { level: 1, name: "Home" }).waitFor();
  await page.getByText("All is well").waitFor();
  await page.locator(".who-name", { hasText: "ada" }).waitFor();

  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await page.getByLabel("Name", { exact: true }).fill("ada");
  await page.getByLabel("Password", { exact: true }).fill("not the password");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").locator(".complaint").waitFor();
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { level: 1, name: "Home" }).waitFor();

  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await page.goto(`${gateway.console}/#/setup`);
  await page.getByLabel("Setup token").fill(gateway.setupToken);
  await page.getByLabel("Your name").fill("eve");
  await page.getByLabel("New password").fill(PASSWORD);
  await page.getByLabel("The password again").fill(PASSWORD);
  await make.click();
  await page.getByRole("alert").locator(".complaint").waitFor();
});
