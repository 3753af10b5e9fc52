// A word with a sign and a colour: the sign and the word say it, the colour only helps.
import type { ComponentChildren } from "preact";
import { Icon, type IconName } from "./icons";

export type Tone = "good" | "warn" | "bad" | "info" | "plain";

const SIGNS: Record<Tone, IconName> = { good: "check", warn: "warning", bad: "cross", info: "circle", plain: "circle" };

interface Props {
  tone: Tone;
  icon?: IconName;
  title?: string;
  children: ComponentChildren;
}

export function Badge({ tone, icon, title, children }: Props) {
  return (
    <span class={`badge ${tone}`} title={title}>
      <Icon name={icon ?? SIGNS[tone]} size={12} />
      {children}
    </span>
  );
}
