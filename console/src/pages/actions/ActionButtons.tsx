// Pause, resume, try at once, drop all: a purge names the number of requests and has it typed.
import { useState } from "preact/hooks";
import { api, path } from "../../api/client";
import type { Action } from "../../api/types";
import { Confirm } from "../../components/Dialog";
import { Icon } from "../../components/icons";
import { say, sayProblem } from "../../components/Notices";
import { count, plural } from "../../text/format";

export function ActionButtons({ action, onDone }: { action: Action; onDone: () => Promise<void> }) {
  const [busy, setBusy] = useState(false);
  const [purge, setPurge] = useState<number | null>(null);
  const place = path("actions", action.rule, action.name);
  const act = async (what: () => Promise<string>) => {
    setBusy(true);
    try {
      say(await what());
      await onDone();
    } catch (thrown) {
      sayProblem(thrown);
    } finally {
      setBusy(false);
    }
  };
  const askPurge = async () => {
    try {
      const wish = await api.post<{ items: number }>(`${place}/purge`, { confirm: `${action.rule}/${action.name}` }, { dry_run: true });
      setPurge(wish.items);
    } catch (thrown) {
      sayProblem(thrown);
    }
  };
  const doPurge = () =>
    act(async () => {
      const done = await api.post<{ items: number }>(`${place}/purge`, { confirm: `${action.rule}/${action.name}` });
      setPurge(null);
      return `${plural(done.items, "request")} dropped`;
    });
  return (
    <>
      {action.paused ? (
        <button type="button" disabled={busy} onClick={() => void act(async () => (await api.post(`${place}/resume`), "The action goes on"))}>
          <Icon name="play" /> Resume
        </button>
      ) : (
        <button type="button" disabled={busy} onClick={() => void act(async () => (await api.post(`${place}/pause`), "The action is paused; requests wait"))}>
          <Icon name="pause" /> Pause
        </button>
      )}
      {action.queue && (
        <>
          <button
            type="button"
            disabled={busy || action.queue.queued === 0}
            onClick={() =>
              void act(async () => {
                const { items } = await api.post<{ items: number }>(`${place}/drain`);
                return `${plural(items, "request")} tried at once`;
              })
            }
          >
            <Icon name="refresh" /> Drain now
          </button>
          <button type="button" class="danger-quiet" disabled={busy || action.queue.queued === 0} onClick={() => void askPurge()}>
            <Icon name="trash" /> Purge…
          </button>
        </>
      )}
      {purge !== null && (
        <Confirm
          title={`Drop all that ${action.rule}/${action.name} owes?`}
          act={`Drop ${plural(purge, "request")}`}
          dangerous
          typed={String(purge)}
          typedLabel={`Type ${purge} to drop ${count(purge)} waiting ${purge === 1 ? "request" : "requests"}`}
          onConfirm={doPurge}
          onClose={() => setPurge(null)}
        >
          <p>
            <strong>{plural(purge, "request")}</strong> will never be sent. They become no dead letters, and there is no way back.
          </p>
        </Confirm>
      )}
    </>
  );
}
