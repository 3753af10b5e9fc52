// The head of a page: its title, what may be done there, and the page below.
import type { ComponentChildren } from "preact";

interface Props {
  title: ComponentChildren;
  /** Where the page belongs, above its title. */
  above?: ComponentChildren;
  lead?: ComponentChildren;
  tools?: ComponentChildren;
  children: ComponentChildren;
}

export function Page({ title, above, lead, tools, children }: Props) {
  return (
    <div class="page">
      <header class="page-head">
        <div class="page-title">
          {above && <div class="above">{above}</div>}
          <h1>{title}</h1>
          {lead && <p class="lead">{lead}</p>}
        </div>
        {tools && <div class="tools">{tools}</div>}
      </header>
      {children}
    </div>
  );
}

interface PanelProps {
  title: ComponentChildren;
  tools?: ComponentChildren;
  class?: string;
  children: ComponentChildren;
}

export function Panel({ title, tools, class: extra, children }: PanelProps) {
  return (
    <section class={extra ? `panel ${extra}` : "panel"}>
      <header class="panel-head">
        <h2>{title}</h2>
        {tools && <div class="tools">{tools}</div>}
      </header>
      <div class="panel-body">{children}</div>
    </section>
  );
}
