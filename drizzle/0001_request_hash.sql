ALTER TABLE "tasks" ADD COLUMN "request_hash" text;
