// Between the contract and the plugin's class, of a transform.
import * as clock from 'towpath:plugin/clock@0.1.0';
import * as config from 'towpath:plugin/config@0.1.0';
import * as log from 'towpath:plugin/log@0.1.0';
import * as random from 'towpath:plugin/random@0.1.0';
import * as schemas from 'towpath:plugin/schemas@0.1.0';
import { transformExports } from 'towpath-component';
import Plugin from 'towpath-plugin';

export const { plugin, transforms } = transformExports(Plugin, { clock, config, log, random, schemas });
