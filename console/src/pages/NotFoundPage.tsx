// What is shown where no page is.
import { Page } from "../components/Page";
import { Empty } from "../components/states";

export function NotFoundPage() {
  return (
    <Page title="Not found">
      <Empty title="There is no such page">
        <p>
          The address may have been mistyped. <a href="#/">Go to the home page</a>
        </p>
      </Empty>
    </Page>
  );
}
