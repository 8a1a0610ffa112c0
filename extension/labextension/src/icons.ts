import { LabIcon } from '@jupyterlab/ui-components';

import busy from '../style/icons/busy.svg';
import draining from '../style/icons/draining.svg';
import failed from '../style/icons/failed.svg';
import ready from '../style/icons/ready.svg';
import stopped from '../style/icons/stopped.svg';
import xinfer from '../style/icons/xinfer.svg';

export const xinferIcon = new LabIcon({ name: 'jupyter-xinfer:xinfer', svgstr: xinfer });
export const busyIcon = new LabIcon({ name: 'jupyter-xinfer:busy', svgstr: busy });
export const drainingIcon = new LabIcon({ name: 'jupyter-xinfer:draining', svgstr: draining });
export const failedIcon = new LabIcon({ name: 'jupyter-xinfer:failed', svgstr: failed });
export const readyIcon = new LabIcon({ name: 'jupyter-xinfer:ready', svgstr: ready });
export const stoppedIcon = new LabIcon({ name: 'jupyter-xinfer:stopped', svgstr: stopped });
