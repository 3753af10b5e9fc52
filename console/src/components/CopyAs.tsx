// "Copy as": what the page shows or does, as a command, a request, or a rule file.
import { useId, useState } from "preact/hooks";
import { Dialog } from "./Dialog";
import { Icon } from "./icons";

export interface CopyItem {
  label: "CLI" | "curl" | "TOML";
  /** What it does, where a page has several of a kind: what is copied with one click does one thing. */
  does?: string;
  text: string;
}

export function CopyAs({ items }: { items: CopyItem[] }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <>
      <button type="button" onClick={() => setOpen(true)}>
        <Icon name="copy" /> Copy as…
      </button>
      {isOpen && (
        <Dialog title="Do the same elsewhere" onClose={() => setOpen(false)} wide>
          {items.map((item) => (
            <CopyText key={`${item.label} ${item.does ?? ""}`} item={item} />
          ))}
        </Dialog>
      )}
    </>
  );
}

function CopyText({ item }: { item: CopyItem }) {
  const [copied, setCopied] = useState(false);
  const id = useId();
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(item.text);
    } catch {
      // Without a secure context there is no clipboard; the text is selected for the user's own keys.
      const range = document.createRange();
      const text = document.getElementById(id);
      if (!text) return;
      range.selectNodeContents(text);
      window.getSelection()?.removeAllRanges();
      window.getSelection()?.addRange(range);
      return;
    }
    setCopied(true);
    window.setTimeout(() => setCopied(false), 2_000);
  };
  return (
    <div class="copy-text">
      <div class="copy-head">
        <h3>
          {item.label}
          {item.does && <span class="faint">: {item.does}</span>}
        </h3>
        <button type="button" onClick={() => void copy()}>
          <Icon name={copied ? "check" : "copy"} /> {copied ? "Copied" : `Copy ${item.label}`}
          {item.does && <span class="hidden">, {item.does}</span>}
        </button>
      </div>
      <pre id={id} tabIndex={0}>
        {item.text}
      </pre>
    </div>
  );
}

/** A request as curl has it; the token comes from the environment. */
export function curl(method: string, url: string, body?: unknown): string {
  const parts = [`curl -H "Authorization: Bearer $TOKEN"`];
  if (method !== "GET" && !(method === "POST" && body !== undefined)) parts.push(`-X ${method}`);
  parts.push(quoted(`${window.location.origin}${url}`));
  if (body !== undefined) parts.push(`--json ${quoted(JSON.stringify(body))}`);
  return parts.join(" ");
}

/** An argument as a shell takes it. */
export function quoted(text: string): string {
  return /^[A-Za-z0-9_\-./:=,@+%]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
