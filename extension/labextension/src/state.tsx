import type { TranslationBundle } from '@jupyterlab/translation';
import type { LabIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { ICluster, ModelState } from './api.js';
import { busyIcon, drainingIcon, failedIcon, readyIcon, stoppedIcon } from './icons.js';

interface ILook {
  icon: LabIcon;
  /** Chooses the colour, and whether the icon turns. */
  tone: 'good' | 'busy' | 'bad' | 'quiet';
  word: string;
}

/** A model's state, as an icon and a word: colour alone is not for everyone. */
export function ModelStateBadge(props: {
  state: ModelState;
  trans: TranslationBundle;
}): React.JSX.Element {
  return <Badge name="state" look={modelLook(props.state, props.trans)} />;
}

/** The cluster's state, as an icon and a sentence. */
export function ClusterState(props: {
  cluster: ICluster;
  trans: TranslationBundle;
}): React.JSX.Element {
  return <Badge name="cluster-state" look={clusterLook(props.cluster.state, props.trans)} />;
}

function Badge({ look, name }: { look: ILook; name: string }): React.JSX.Element {
  return (
    <span className={`jp-xinfer-Badge jp-mod-${look.tone}`} data-xinfer={name} role="status">
      <look.icon.react tag="span" className="jp-xinfer-Badge-icon" aria-hidden="true" />
      {look.word}
    </span>
  );
}

function modelLook(state: ModelState, trans: TranslationBundle): ILook {
  switch (state) {
    case 'placing':
      return { icon: busyIcon, tone: 'busy', word: trans.__('Placing') };
    case 'downloading':
      return { icon: busyIcon, tone: 'busy', word: trans.__('Downloading') };
    case 'loading':
      return { icon: busyIcon, tone: 'busy', word: trans.__('Loading') };
    case 'ready':
      return { icon: readyIcon, tone: 'good', word: trans.__('Ready') };
    case 'draining':
      return { icon: drainingIcon, tone: 'quiet', word: trans.__('Stopping') };
    case 'failed':
      return { icon: failedIcon, tone: 'bad', word: trans.__('Failed') };
    case 'sleeping':
      return { icon: stoppedIcon, tone: 'quiet', word: trans.__('Asleep') };
    default:
      // A newer server may know states that this panel does not.
      return { icon: busyIcon, tone: 'quiet', word: state };
  }
}

function clusterLook(state: ICluster['state'], trans: TranslationBundle): ILook {
  switch (state) {
    case 'running':
      return { icon: readyIcon, tone: 'good', word: trans.__('Cluster running') };
    case 'starting':
      return { icon: busyIcon, tone: 'busy', word: trans.__('Cluster starting') };
    case 'stopped':
      return { icon: stoppedIcon, tone: 'quiet', word: trans.__('Cluster stopped') };
    case 'unreachable':
      return { icon: failedIcon, tone: 'bad', word: trans.__('Cluster unreachable') };
    case 'failed':
      return { icon: failedIcon, tone: 'bad', word: trans.__('Cluster failed') };
    default:
      return { icon: busyIcon, tone: 'quiet', word: state };
  }
}
