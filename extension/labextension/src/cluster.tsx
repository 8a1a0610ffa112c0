import type { TranslationBundle } from '@jupyterlab/translation';
import { launchIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { IInfo } from './api.js';
import { ClusterState } from './state.js';

/** The line at the top: how the cluster is, and the way to its dashboard. */
export function ClusterLine(props: {
  info: IInfo;
  /** The dashboard's address, or null while there is none. */
  dashboard: string | null;
  trans: TranslationBundle;
}): React.JSX.Element {
  const { info, dashboard, trans } = props;
  return (
    <div className="jp-xinfer-Cluster">
      <ClusterState cluster={info.cluster} trans={trans} />
      <DashboardLink url={dashboard} trans={trans} />
      {info.cluster.message && <p className="jp-xinfer-note">{info.cluster.message}</p>}
    </div>
  );
}

function DashboardLink(props: { url: string | null; trans: TranslationBundle }): React.JSX.Element {
  const { url, trans } = props;
  const content = (
    <>
      {trans.__('Dask dashboard')}
      <launchIcon.react tag="span" className="jp-xinfer-Link-icon" aria-hidden="true" />
    </>
  );
  if (url === null) {
    return (
      <span
        className="jp-xinfer-Link jp-mod-disabled"
        data-xinfer="dashboard-link"
        role="link"
        aria-disabled="true"
        title={trans.__('There is a dashboard once the cluster runs')}
      >
        {content}
      </span>
    );
  }
  return (
    <a
      className="jp-xinfer-Link"
      data-xinfer="dashboard-link"
      href={url}
      target="_blank"
      rel="noopener noreferrer"
      title={trans.__('Open the Dask dashboard in a new browser tab')}
    >
      {content}
    </a>
  );
}
