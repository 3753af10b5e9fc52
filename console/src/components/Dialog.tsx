// Questions: the browser's own dialog, so that focus stays inside and Escape closes it.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Icon } from "./icons";

interface Props {
  title: string;
  onClose: () => void;
  wide?: boolean;
  children: ComponentChildren;
}

export function Dialog({ title, onClose, wide, children }: Props) {
  const box = useRef<HTMLDialogElement>(null);
  const isGone = useRef(false);
  const id = useId();
  useEffect(() => {
    const dialog = box.current;
    if (dialog && !dialog.open) dialog.showModal();
    return () => {
      // Closing gives the focus back. What the browser tells of it later is no wish of anybody's: another question may be open.
      isGone.current = true;
      dialog?.close();
    };
  }, []);
  return (
    <dialog ref={box} class={wide ? "wide" : ""} aria-labelledby={id} onClose={() => isGone.current || onClose()}>
      <header class="dialog-head">
        <h2 id={id}>{title}</h2>
        <button type="button" class="quiet" onClick={onClose}>
          <Icon name="cross" />
          <span class="hidden">Close</span>
        </button>
      </header>
      <div class="dialog-body">{children}</div>
    </dialog>
  );
}

interface ConfirmProps {
  title: string;
  children: ComponentChildren;
  /** What the button says. */
  act: string;
  dangerous?: boolean;
  /** Has to be typed before the button works. */
  typed?: string;
  typedLabel?: string;
  onConfirm: () => Promise<void>;
  onClose: () => void;
}

export function Confirm({ title, children, act, dangerous, typed, typedLabel, onConfirm, onClose }: ConfirmProps) {
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(false);
  const ready = !busy && (typed === undefined || text.trim() === typed);
  const submit = async (event: Event) => {
    event.preventDefault();
    if (!ready) return;
    setBusy(true);
    await onConfirm().finally(() => setBusy(false));
  };
  return (
    <Dialog title={title} onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        {children}
        {typed !== undefined && (
          <label class="field">
            <span>{typedLabel ?? `Type ${typed} to confirm`}</span>
            <input value={text} autoComplete="off" onInput={(event) => setText(event.currentTarget.value)} />
          </label>
        )}
        <div class="dialog-foot">
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class={dangerous ? "danger" : "primary"} disabled={!ready}>
            {act}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
