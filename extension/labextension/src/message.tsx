import * as React from 'react';

import { failedIcon } from './icons.js';

/** Something went wrong: announced by screen readers, and kept as the server worded it. */
export function ErrorMessage(props: { message: string }): React.JSX.Element {
  return (
    <div className="jp-xinfer-Error" data-xinfer="error" role="alert">
      <failedIcon.react tag="span" className="jp-xinfer-Error-icon" aria-hidden="true" />
      <span className="jp-xinfer-Error-text">{props.message}</span>
    </div>
  );
}
