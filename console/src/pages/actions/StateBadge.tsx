// An action's state as a word with a sign.
import type { ActionState } from "../../api/types";
import { Badge, type Tone } from "../../components/Badge";
import type { IconName } from "../../components/icons";

const LOOKS: Record<ActionState, { tone: Tone; icon: IconName }> = {
  running: { tone: "good", icon: "check" },
  waiting: { tone: "warn", icon: "clock" },
  refused: { tone: "bad", icon: "cross" },
  paused: { tone: "plain", icon: "pause" },
  draining: { tone: "info", icon: "play" },
  stopped: { tone: "plain", icon: "cross" },
};

export function StateBadge({ state }: { state: ActionState }) {
  const look = LOOKS[state];
  return (
    <Badge tone={look.tone} icon={look.icon}>
      {state}
    </Badge>
  );
}
