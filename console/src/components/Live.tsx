// The mark of a page that follows the gateway, with its pause button and what came meanwhile.
import type { StreamState } from "../api/stream";
import { count } from "../text/format";
import { Icon } from "./icons";

interface Props {
  state: StreamState;
  paused: boolean;
  waiting: number;
  onPause: (paused: boolean) => void;
}

const WORDS: Record<StreamState, string> = { connecting: "connecting", open: "live", lost: "disconnected" };

export function Live({ state, paused, waiting, onPause }: Props) {
  const words = paused ? `paused${waiting ? `, ${count(waiting)} new` : ""}` : WORDS[state];
  return (
    <div class="live">
      {/* No live region: a counter that is read out four times a second would drown everything else. */}
      <span class={`live-mark ${paused ? "paused" : state}`}>{words}</span>
      <button type="button" aria-pressed={paused} onClick={() => onPause(!paused)}>
        <Icon name={paused ? "play" : "pause"} /> {paused ? "Resume" : "Pause"}
      </button>
    </div>
  );
}
