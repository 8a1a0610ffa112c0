import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IModel, IReplica } from './api.js';
import { formatRate } from './format.js';

/** The replicas of a model, folded; nothing for a single one that never restarted. */
export function Replicas(props: {
  model: IModel;
  trans: TranslationBundle;
}): React.JSX.Element | null {
  const { model, trans } = props;
  const restarts = model.replicas.reduce((sum, replica) => sum + replica.restarts, 0);
  const isPlain = model.replica === 1 && model.replicas.length <= 1 && restarts === 0;
  if (isPlain || model.replicas.length === 0) {
    return null;
  }
  const ready = model.replicas.filter(replica => replica.state === 'ready').length;
  const summary = [
    trans._n('%2 of %1 replica ready', '%2 of %1 replicas ready', model.replica, ready),
    restarts ? trans._n('restarted once', 'restarted %1 times', restarts) : ''
  ];
  return (
    <details className="jp-xinfer-Replicas">
      <summary>{summary.filter(Boolean).join(' · ')}</summary>
      <ul>
        {model.replicas.map(replica => (
          <li key={replica.replica_id}>
            <Replica replica={replica} trans={trans} />
          </li>
        ))}
      </ul>
    </details>
  );
}

function Replica(props: { replica: IReplica; trans: TranslationBundle }): React.JSX.Element {
  const { replica, trans } = props;
  const facts = [
    replica.node,
    replica.state,
    replica.state === 'ready'
      ? trans.__('%1 tokens/s', formatRate(replica.tokens_per_second))
      : replica.message
  ];
  return <>{facts.filter(Boolean).join(' · ')}</>;
}
