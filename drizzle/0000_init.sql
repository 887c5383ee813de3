CREATE TABLE "rate_limits" (
	"key" text PRIMARY KEY NOT NULL,
	"points" integer DEFAULT 0 NOT NULL,
	"expire" bigint
);
--> statement-breakpoint
CREATE TABLE "session_ends" (
	"session_id" uuid NOT NULL,
	"ended_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "sessions" (
	"id" uuid PRIMARY KEY NOT NULL,
	"user_id" uuid NOT NULL,
	"token_hash" text NOT NULL,
	"previous_hash" text,
	"rotated_at" timestamp with time zone DEFAULT now() NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"last_used_at" timestamp with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp with time zone NOT NULL,
	"user_agent" text,
	"ip" text
);
--> statement-breakpoint
CREATE TABLE "user_versions" (
	"user_id" uuid PRIMARY KEY NOT NULL,
	"last_version" bigint DEFAULT 0 NOT NULL,
	"forgotten_version" bigint DEFAULT 0 NOT NULL
);
--> statement-breakpoint
CREATE TABLE "task_tombstones" (
	"id" uuid NOT NULL,
	"user_id" uuid NOT NULL,
	"version" bigint NOT NULL,
	"deleted_at" timestamp with time zone NOT NULL,
	CONSTRAINT "task_tombstones_pkey" PRIMARY KEY("id","user_id")
);
--> statement-breakpoint
-- By hand (src/modules/table-registry.ts lists these texts): the column "json" of the tasks calls it.
CREATE FUNCTION "task_json"(
  "id" uuid, "user_id" uuid, "title" text, "description" text, "status" text, "priority" smallint, "due_at" timestamp with time zone, "tags" text[], "position" text, "completed_at" timestamp with time zone, "created_at" timestamp with time zone, "updated_at" timestamp with time zone, "version" bigint
) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
declare
  moment constant text := '"\""YYYY-MM-DD"T"HH24:MI:SS.US"Z\""';
begin
  return '{"id":' || '"' || "id" || '"'
    || ',"user_id":' || '"' || "user_id" || '"'
    || ',"title":' || to_json("title")::text
    || ',"description":' || coalesce(to_json("description")::text, 'null')
    || ',"status":' || '"' || "status" || '"'
    || ',"priority":' || "priority"::text
    || ',"due_at":' || coalesce(to_char("due_at" at time zone 'UTC', moment), 'null')
    || ',"tags":' || case when "tags" = '{}' then '[]' else array_to_json("tags")::text end
    || ',"position":' || to_json("position")::text
    || ',"completed_at":' || coalesce(to_char("completed_at" at time zone 'UTC', moment), 'null')
    || ',"created_at":' || to_char("created_at" at time zone 'UTC', moment)
    || ',"updated_at":' || to_char("updated_at" at time zone 'UTC', moment)
    || ',"version":' || "version"::text || '}';
end $$;
--> statement-breakpoint
CREATE TABLE "tasks" (
	"id" uuid NOT NULL,
	"user_id" uuid NOT NULL,
	"title" text NOT NULL,
	"description" text,
	"status" text DEFAULT 'pending' NOT NULL,
	"priority" smallint DEFAULT 0 NOT NULL,
	"due_at" timestamp with time zone,
	"tags" text[] DEFAULT '{}' NOT NULL,
	"position" text COLLATE "C" DEFAULT '' NOT NULL,
	"title_words" text COLLATE "C" DEFAULT '' NOT NULL,
	"description_words" text COLLATE "C" DEFAULT '' NOT NULL,
	"completed_at" timestamp with time zone,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	"version" bigint NOT NULL,
	"deleted_at" timestamp with time zone,
	"json" text GENERATED ALWAYS AS (task_json(id, user_id, title, description, status, priority, due_at, tags, position, completed_at, created_at, updated_at, version)) STORED NOT NULL,
	CONSTRAINT "tasks_pkey" PRIMARY KEY("id","user_id"),
	CONSTRAINT "tasks_title_length" CHECK (char_length("tasks"."title") between 1 and 200),
	CONSTRAINT "tasks_title_not_blank" CHECK (ltrim("tasks"."title", E' \t\n\v\f\r') <> ''),
	CONSTRAINT "tasks_description_length" CHECK (char_length("tasks"."description") <= 2000),
	CONSTRAINT "tasks_status_known" CHECK ("tasks"."status" in ('pending', 'in_progress', 'completed')),
	CONSTRAINT "tasks_priority_range" CHECK ("tasks"."priority" between 0 and 4),
	CONSTRAINT "tasks_position_length" CHECK (char_length("tasks"."position") <= 255),
	CONSTRAINT "tasks_tags_count" CHECK (cardinality("tasks"."tags") <= 20),
	CONSTRAINT "tasks_tags_items" CHECK (array_position("tasks"."tags", null) is null and array_position("tasks"."tags", '') is null and char_length(array_to_string("tasks"."tags", '')) <= 1000),
	CONSTRAINT "tasks_due_at_range" CHECK ("tasks"."due_at" >= '0001-01-01 00:00:00+00' and "tasks"."due_at" < '10000-01-01 00:00:00+00'),
	CONSTRAINT "tasks_completed_at_matches" CHECK (("tasks"."status" = 'completed') = ("tasks"."completed_at" is not null))
);
--> statement-breakpoint
CREATE TABLE "users" (
	"id" uuid PRIMARY KEY NOT NULL,
	"email" text NOT NULL,
	"normalized_email" text NOT NULL,
	"password_hash" text NOT NULL,
	"disabled_at" timestamp with time zone,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "users_normalized_email_unique" UNIQUE("normalized_email"),
	CONSTRAINT "users_email_length" CHECK (char_length("users"."email") between 3 and 254)
);
--> statement-breakpoint
ALTER TABLE "sessions" ADD CONSTRAINT "sessions_user_fk" FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "task_tombstones" ADD CONSTRAINT "task_tombstones_user_fk" FOREIGN KEY ("user_id") REFERENCES "public"."user_versions"("user_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "tasks" ADD CONSTRAINT "tasks_user_fk" FOREIGN KEY ("user_id") REFERENCES "public"."user_versions"("user_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "rate_limits_expire" ON "rate_limits" USING btree ("expire");--> statement-breakpoint
CREATE INDEX "session_ends_ended_at" ON "session_ends" USING btree ("ended_at");--> statement-breakpoint
CREATE INDEX "sessions_user" ON "sessions" USING btree ("user_id");--> statement-breakpoint
CREATE INDEX "sessions_expiry" ON "sessions" USING btree ("expires_at");--> statement-breakpoint
CREATE INDEX "task_tombstones_feed" ON "task_tombstones" USING btree ("user_id","version");--> statement-breakpoint
CREATE INDEX "task_tombstones_age" ON "task_tombstones" USING btree ("deleted_at");--> statement-breakpoint
CREATE INDEX "tasks_created" ON "tasks" USING btree ("user_id","created_at","id") WHERE "tasks"."deleted_at" is null;--> statement-breakpoint
CREATE UNIQUE INDEX "tasks_feed" ON "tasks" USING btree ("user_id","version");--> statement-breakpoint
CREATE INDEX "tasks_trash" ON "tasks" USING btree ("user_id","deleted_at","id") WHERE "tasks"."deleted_at" is not null;
--> statement-breakpoint
-- By hand, as above.
CREATE FUNCTION "note_session_ends"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO "session_ends" ("session_id", "ended_at") SELECT "id", clock_timestamp() FROM "ended";
  RETURN NULL;
END
$$;
--> statement-breakpoint
CREATE TRIGGER "sessions_ended" AFTER DELETE ON "sessions" REFERENCING OLD TABLE AS "ended"
  FOR EACH STATEMENT EXECUTE FUNCTION "note_session_ends"();
--> statement-breakpoint
ALTER TABLE "user_versions" SET (fillfactor = 50);
--> statement-breakpoint
CREATE FUNCTION "require_new_version"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'an update of task % keeps its version %: take the next one (update user_versions set last_version = last_version + 1 where user_id = ''%'' returning last_version) and set version to it', OLD.id, OLD.version, OLD.user_id;
END
$$;
--> statement-breakpoint
CREATE TRIGGER "tasks_require_new_version" AFTER UPDATE ON "tasks" FOR EACH ROW WHEN (NEW.version <= OLD.version)
  EXECUTE FUNCTION "require_new_version"();
--> statement-breakpoint
ALTER TABLE "tasks"
  ALTER COLUMN "description" SET STORAGE EXTERNAL,
  ALTER COLUMN "title_words" SET STORAGE EXTERNAL,
  ALTER COLUMN "description_words" SET STORAGE EXTERNAL,
  ALTER COLUMN "json" SET STORAGE EXTERNAL;
