// Between the contract and the plugin's class, of a sink.
import * as clock from 'towpath:plugin/clock@0.1.0';
import * as config from 'towpath:plugin/config@0.1.0';
import * as http from 'towpath:plugin/http@0.1.0';
import * as log from 'towpath:plugin/log@0.1.0';
import * as random from 'towpath:plugin/random@0.1.0';
import * as schemas from 'towpath:plugin/schemas@0.1.0';
import * as secrets from 'towpath:plugin/secrets@0.1.0';
import * as tcp from 'towpath:plugin/tcp@0.1.0';
import { sinkExports } from 'towpath-component';
import Plugin from 'towpath-plugin';

export const { sinks } = sinkExports(Plugin, { clock, config, http, log, random, schemas, secrets, tcp });
