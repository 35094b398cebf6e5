BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE attempts (
	task_id VARCHAR(255) NOT NULL, 
	attempt INTEGER NOT NULL, 
	started_ms BIGINT NOT NULL, 
	role VARCHAR(64) NOT NULL, 
	provider VARCHAR(64) NOT NULL, 
	model VARCHAR(255) NOT NULL, 
	outcome VARCHAR(16) NOT NULL, 
	error VARCHAR(64) NOT NULL, 
	status INTEGER, 
	latency_ms BIGINT NOT NULL, 
	queued_ms BIGINT NOT NULL, 
	first_token_ms BIGINT, 
	input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	cached_input_tokens BIGINT NOT NULL, 
	cache_write_tokens BIGINT NOT NULL, 
	reasoning_tokens BIGINT NOT NULL, 
	cost_pico_usd BIGINT, 
	price_source VARCHAR(32), 
	price_version VARCHAR(64), 
	failover INTEGER NOT NULL, 
	request_id VARCHAR(255), 
	worker VARCHAR(255) NOT NULL, 
	roles_version VARCHAR(64) NOT NULL, 
	metadata JSON NOT NULL, 
	why TEXT NOT NULL, 
	PRIMARY KEY (task_id, attempt, started_ms)
);
INSERT INTO "attempts" VALUES('plain',1,1795941687472,'coder','claude','m-1','succeeded','',NULL,41,3392,NULL,4,4,0,0,0,24000000,'roles.yaml','040494a02373',0,'req_000000000001','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('options',1,1795941687502,'coder','claude','m-1','succeeded','',NULL,29,3362,NULL,4,2,0,0,0,14000000,'roles.yaml','040494a02373',0,'req_000000000003','vm:30934','040494a02373','{"tenant": "acme"}','first of the chain');
INSERT INTO "attempts" VALUES('sent',1,1795941687477,'coder','claude','m-1','succeeded','',NULL,53,0,NULL,3,3,0,0,0,18000000,'roles.yaml','040494a02373',0,'req_000000000004','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('cached-1',1,1795941687503,'cached','claude','m-1','succeeded','',NULL,33,3306,NULL,2,2,0,0,0,12000000,'roles.yaml','040494a02373',0,'req_000000000005','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('refused',1,1795941687493,'refused','refusing','m-1','failed','InvalidRequest',400,71,3310,NULL,0,0,0,0,0,NULL,NULL,NULL,0,'req_000000000002','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('common',1,1795941687515,'coder','claude','m-1','succeeded','',NULL,60,2579,NULL,4,4,0,0,0,24000000,'roles.yaml','040494a02373',0,'req_000000000007','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('cached-2',1,1795941687607,'cached','claude','m-1','cached','',NULL,0,3432,NULL,0,0,0,0,0,0,NULL,NULL,0,NULL,'vm:30934','040494a02373','{}','shared the call of task cached-1');
INSERT INTO "attempts" VALUES('messages',1,1795941687551,'coder','claude','m-1','succeeded','',NULL,55,3429,NULL,3,2,0,0,0,13000000,'roles.yaml','040494a02373',0,'req_000000000006','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('deadline',1,1795941687671,'coder','claude','m-1','succeeded','',NULL,2,3480,NULL,2,2,0,0,0,12000000,'roles.yaml','040494a02373',0,'req_000000000009','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('countdown',1,1795941687688,'coder','claude','m-1','succeeded','',NULL,20,3527,NULL,2,2,0,0,0,12000000,'roles.yaml','040494a02373',0,'req_000000000010','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('streamed',1,1795941687611,'coder','claude','m-1','succeeded','',NULL,80,3450,41,4,4,0,0,0,24000000,'roles.yaml','040494a02373',0,'req_000000000008','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('chain-1',1,1795941687716,'coder','claude','m-1','succeeded','',NULL,5,3552,NULL,2,2,0,0,0,12000000,'roles.yaml','040494a02373',0,'req_000000000012','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('expires',1,1795941687670,'coder','claude','m-1','succeeded','',NULL,43,3510,NULL,2,2,0,0,0,12000000,'roles.yaml','040494a02373',0,'req_000000000011','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('part-a',1,1795941687748,'coder','claude','m-1','succeeded','',NULL,23,3582,NULL,1,1,0,0,0,6000000,'roles.yaml','040494a02373',0,'req_000000000013','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('tools',1,1795941687766,'coder','claude','m-1','succeeded','',NULL,17,3448,NULL,34,3,0,0,0,49000000,'roles.yaml','040494a02373',0,'req_000000000014','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('110ff40a-eeb5-56ce-ad49-9cfa30d4535a',1,1795941687782,'coder','claude','m-1','succeeded','',NULL,14,222,NULL,4,4,0,0,0,24000000,'roles.yaml','040494a02373',0,'req_000000000015','vm:30934','040494a02373','{"workflow": "feature", "run": "run", "stage": "clarify", "round": 1}','first of the chain');
INSERT INTO "attempts" VALUES('part-b',1,1795941687786,'coder','claude','m-1','succeeded','',NULL,12,3605,NULL,1,1,0,0,0,6000000,'roles.yaml','040494a02373',0,'req_000000000016','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('priority',1,1795941687799,'coder','claude','m-1','succeeded','',NULL,15,3638,NULL,2,2,0,0,0,12000000,'roles.yaml','040494a02373',0,'req_000000000018','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('schema',1,1795941687768,'coder','claude','m-1','failed','SchemaViolated',NULL,42,3446,NULL,2,2,0,0,0,12000000,'roles.yaml','040494a02373',0,'req_000000000017','vm:30934','040494a02373','{}','first of the chain; the answer is not JSON');
INSERT INTO "attempts" VALUES('schema',2,1795941687815,'coder','claude','m-1','failed','SchemaViolated',NULL,8,3446,NULL,30,27,0,0,0,165000000,'roles.yaml','040494a02373',0,'req_000000000019','vm:30934','040494a02373','{}','asked again, with what is wrong with its answer; the answer is not JSON');
INSERT INTO "attempts" VALUES('chain-2',1,1795941687827,'reviewer','gpt','m-2','succeeded','',NULL,9,48,NULL,2,2,0,0,0,NULL,'unpriced',NULL,0,'req_000000000020','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('body',1,1795941687869,'reviewer','gpt','m-2','succeeded','',NULL,30,32,NULL,2,2,0,0,0,NULL,'unpriced',NULL,0,'req_000000000021','vm:30934','040494a02373','{}','first of the chain');
INSERT INTO "attempts" VALUES('a2744a35-1855-5530-83bd-f58084333e22',1,1795941687921,'slow','slow','m-1','succeeded','',NULL,7,3,NULL,6,6,0,0,0,NULL,'unpriced',NULL,0,'req_000000000022','vm:30934','040494a02373','{"workflow": "feature", "run": "run", "stage": "write", "round": 1}','first of the chain');
INSERT INTO "attempts" VALUES('651f260e-210c-59a2-a1ae-d038d76c8078',1,1795941687940,'reviewer','gpt','m-2','succeeded','',NULL,7,3,NULL,7,7,0,0,0,NULL,'unpriced',NULL,0,'req_000000000023','vm:30934','040494a02373','{"workflow": "feature", "run": "run", "stage": "review", "round": 1}','first of the chain');
CREATE TABLE day_times (
	day INTEGER NOT NULL, 
	provider VARCHAR(255) NOT NULL, 
	model VARCHAR(255) NOT NULL, 
	role VARCHAR(255) NOT NULL, 
	outcome VARCHAR(255) NOT NULL, 
	error VARCHAR(255) NOT NULL, 
	time VARCHAR(16) NOT NULL, 
	sixteen INTEGER NOT NULL, 
	n0 BIGINT NOT NULL, 
	n1 BIGINT NOT NULL, 
	n2 BIGINT NOT NULL, 
	n3 BIGINT NOT NULL, 
	n4 BIGINT NOT NULL, 
	n5 BIGINT NOT NULL, 
	n6 BIGINT NOT NULL, 
	n7 BIGINT NOT NULL, 
	n8 BIGINT NOT NULL, 
	n9 BIGINT NOT NULL, 
	n10 BIGINT NOT NULL, 
	n11 BIGINT NOT NULL, 
	n12 BIGINT NOT NULL, 
	n13 BIGINT NOT NULL, 
	n14 BIGINT NOT NULL, 
	n15 BIGINT NOT NULL, 
	PRIMARY KEY (day, provider, model, role, outcome, error, time, sixteen)
);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','latency_ms',11,0,0,0,0,0,0,0,0,0,0,0,0,0,1,0,1);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','queued_ms',25,0,0,0,0,0,0,0,0,0,0,0,0,2,4,3,2);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','latency_ms',10,1,0,0,0,0,0,0,0,0,0,0,0,1,0,0,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','latency_ms',12,0,0,0,0,0,0,0,0,0,0,1,0,1,0,0,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','queued_ms',0,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','cached','succeeded','','latency_ms',11,0,0,1,0,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','cached','succeeded','','queued_ms',25,0,0,0,0,0,0,0,0,0,0,0,1,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'refusing','m-1','refused','failed','InvalidRequest','latency_ms',13,0,0,0,0,0,0,0,0,0,1,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'refusing','m-1','refused','failed','InvalidRequest','queued_ms',25,0,0,0,0,0,0,0,0,0,0,0,1,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','latency_ms',13,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','queued_ms',24,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','latency_ms',2,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','latency_ms',9,0,1,0,0,0,0,0,0,0,1,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','first_token_ms',11,0,0,0,0,0,0,0,0,0,0,0,0,0,1,0,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','latency_ms',5,0,0,0,1,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','latency_ms',8,0,0,0,0,0,0,0,1,0,0,1,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','queued_ms',17,0,0,1,0,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','latency_ms',7,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','succeeded','','queued_ms',26,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','failed','SchemaViolated','latency_ms',11,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','failed','SchemaViolated','queued_ms',25,0,0,0,0,0,0,0,0,0,0,0,0,0,2,0,0);
INSERT INTO "day_times" VALUES(20786,'claude','m-1','coder','failed','SchemaViolated','latency_ms',6,0,0,0,0,0,0,0,0,0,0,0,1,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'gpt','m-2','reviewer','succeeded','','latency_ms',7,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'gpt','m-2','reviewer','succeeded','','queued_ms',12,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'gpt','m-2','reviewer','succeeded','','latency_ms',10,0,0,0,0,0,0,0,0,0,0,0,0,0,1,0,0);
INSERT INTO "day_times" VALUES(20786,'gpt','m-2','reviewer','succeeded','','queued_ms',11,0,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'slow','m-1','slow','succeeded','','latency_ms',6,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'slow','m-1','slow','succeeded','','queued_ms',3,0,0,0,0,0,0,0,0,0,1,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'gpt','m-2','reviewer','succeeded','','latency_ms',6,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "day_times" VALUES(20786,'gpt','m-2','reviewer','succeeded','','queued_ms',3,0,0,0,0,0,0,0,0,0,1,0,0,0,0,0,0);
CREATE TABLE days (
	day INTEGER NOT NULL, 
	provider VARCHAR(255) NOT NULL, 
	model VARCHAR(255) NOT NULL, 
	role VARCHAR(255) NOT NULL, 
	outcome VARCHAR(255) NOT NULL, 
	error VARCHAR(255) NOT NULL, 
	attempts BIGINT NOT NULL, 
	failovers BIGINT NOT NULL, 
	unpriced BIGINT NOT NULL, 
	cost_pico_usd BIGINT NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	cached_input_tokens BIGINT NOT NULL, 
	cache_write_tokens BIGINT NOT NULL, 
	reasoning_tokens BIGINT NOT NULL, 
	PRIMARY KEY (day, provider, model, role, outcome, error)
);
INSERT INTO "days" VALUES(20786,'claude','m-1','coder','succeeded','',15,0,0,262000000,72,38,0,0,0);
INSERT INTO "days" VALUES(20786,'claude','m-1','cached','succeeded','',1,0,0,12000000,2,2,0,0,0);
INSERT INTO "days" VALUES(20786,'refusing','m-1','refused','failed','InvalidRequest',1,0,0,0,0,0,0,0,0);
INSERT INTO "days" VALUES(20786,'claude','m-1','cached','cached','',1,0,0,0,0,0,0,0,0);
INSERT INTO "days" VALUES(20786,'claude','m-1','coder','failed','SchemaViolated',2,0,0,177000000,32,29,0,0,0);
INSERT INTO "days" VALUES(20786,'gpt','m-2','reviewer','succeeded','',3,0,3,0,11,11,0,0,0);
INSERT INTO "days" VALUES(20786,'slow','m-1','slow','succeeded','',1,0,1,0,6,6,0,0,0);
CREATE INDEX attempts_started_ms ON attempts (started_ms);
COMMIT;
