import { AsyncLocalStorage } from 'node:async_hooks'
import {
  type Attributes,
  type Context,
  DiagLogLevel,
  defaultTextMapGetter,
  diag,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api'
import { getNumberFromEnv, W3CTraceContextPropagator } from '@opentelemetry/core'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import {
  defaultResource,
  detectResources,
  resourceAttributesEnvDetector,
  resourceFromAttributes,
  serviceNameEnvDetector,
} from '@opentelemetry/resources'
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  type Sampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace'
import { Elysia } from 'elysia'
import { atMost } from '../lib/at-most.ts'
import { onceAMinute } from '../lib/once-a-minute.ts'
import type { Log } from './log.ts'
import type { AroundStatement, Observer } from './observer.ts'

const propagator = new W3CTraceContextPropagator()

/** Frequent requests whose traces are of no use. */
const isProbe = /^https?:\/\/[^/]+\/(health|metrics)\b/

const flushMsMax = 2000

interface TracingOptions {
  /** The variables whose names begin with `OTEL_`. */
  env: Record<string, string | undefined>
  version: string
  log: Log
}

/**
 * Traces by OpenTelemetry: a span for each request and, inside it, one for each statement. Sent as OTLP (JSON over HTTP)
 * to the collector of the usual `OTEL_…` variables. Loaded only when they are set.
 *
 * The SDK is set up here, because Elysia's OpenTelemetry plugin and its hooks make a small request four times slower.
 */
export function createTracing({ env, version, log }: TracingOptions) {
  // The exporter reads its address and headers from the environment; some may come from `.env`.
  for (const [name, value] of Object.entries(env)) process.env[name] ??= value
  diag.setLogger(warningsTo(log), DiagLogLevel.WARN)

  const provider = new TracerProvider({
    resource: defaultResource()
      .merge(resourceFromAttributes({ 'service.name': 'todo-api', 'service.version': version }))
      .merge(detectResources({ detectors: [resourceAttributesEnvDetector, serviceNameEnvDetector] })),
    sampler: samplerOf(env),
    spanProcessors: [new BatchSpanProcessor({ exporter: new OTLPTraceExporter(), ...batchOptions() })],
  })
  const tracer = provider.getTracer('todo-api', version)
  /** The span of the current request. */
  const current = new AsyncLocalStorage<Context>()
  const spanOf = (context: Context | undefined) => context && trace.getSpan(context)

  /** Runs each request inside its span. */
  const requests = new Elysia({ name: 'tracing' }).wrap((handle, request) => {
    if (isProbe.test(request.url)) return handle
    const parent = propagator.extract(ROOT_CONTEXT, request.headers.toJSON(), defaultTextMapGetter)
    const attributes = { 'http.request.method': request.method }
    const span = tracer.startSpan(request.method, { kind: SpanKind.SERVER, attributes }, parent)
    const context = trace.setSpan(parent, span)
    return (...args: unknown[]) => current.run(context, () => handle(...args))
  })

  const observe: Observer = ({ requestId, method, route, status }) => {
    const span = spanOf(current.getStore())
    if (!span) return undefined
    span.updateName(`${method} ${route}`)
    span.setAttributes({
      'http.route': route,
      'http.response.status_code': status,
      'http.response.header.x-request-id': [requestId],
    })
    if (status >= 500) span.setStatus({ code: SpanStatusCode.ERROR })
    span.end()
    return { trace_id: span.spanContext().traceId }
  }

  const aroundStatement: AroundStatement = async ({ operation, table }, text, run) => {
    const parent = current.getStore()
    if (!spanOf(parent)?.isRecording()) return run()
    const attributes: Attributes = {
      'db.system.name': 'postgresql',
      'db.operation.name': operation,
      // As it is sent, with $1 in the place of values.
      'db.query.text': text,
      ...(table && { 'db.collection.name': table }),
    }
    const name = table ? `${operation} ${table}` : operation
    const span = tracer.startSpan(name, { kind: SpanKind.CLIENT, attributes }, parent)
    try {
      return await run()
    } catch (error) {
      // Only the code: messages of a database repeat values.
      const { code, name } = error as { code?: string; name?: string }
      span.setAttribute('error.type', code ?? name ?? 'unknown')
      span.setStatus({ code: SpanStatusCode.ERROR })
      throw error
    } finally {
      span.end()
    }
  }

  return {
    requests,
    observe,
    aroundStatement,
    /** Sends remaining spans, for `flushMsMax` at most. */
    async stop() {
      const sending = provider.shutdown().catch(() => {})
      await atMost(flushMsMax, sending, () => {})
    },
  }
}

/** `OTEL_TRACES_SAMPLER`, which only the SDK's own set-up reads. Always on and off are the ratios 1 and 0. */
export function samplerOf(env: Record<string, string | undefined>): Sampler {
  const [, parentBased, kind] =
    /^(parentbased_)?(always_on|always_off|traceidratio)$/.exec(env.OTEL_TRACES_SAMPLER ?? '') ?? []
  const given = Number(env.OTEL_TRACES_SAMPLER_ARG ?? 1)
  const ratios = { always_on: 1, always_off: 0, traceidratio: Number.isFinite(given) ? given : 1 }
  const root = new TraceIdRatioBasedSampler(ratios[(kind ?? 'always_on') as keyof typeof ratios])
  return kind && !parentBased ? root : new ParentBasedSampler({ root })
}

/** How many spans wait for how long, with OpenTelemetry's defaults. */
const batchOptions = () => ({
  scheduledDelayMillis: getNumberFromEnv('OTEL_BSP_SCHEDULE_DELAY') ?? 5000,
  exportTimeoutMillis: getNumberFromEnv('OTEL_BSP_EXPORT_TIMEOUT') ?? 30_000,
  maxQueueSize: getNumberFromEnv('OTEL_BSP_MAX_QUEUE_SIZE') ?? 2048,
  maxExportBatchSize: getNumberFromEnv('OTEL_BSP_MAX_EXPORT_BATCH_SIZE') ?? 512,
})

/** Logs that a collector is away once a minute, not for every batch. */
function warningsTo(log: Log) {
  const warn = onceAMinute((message: string) =>
    log.warn('traces are lost', { reason: reasonOf(message).slice(0, 300) }),
  )
  const ignore = () => {}
  return { error: warn, warn, info: ignore, debug: ignore, verbose: ignore }
}

/** The SDK reports an error as JSON, with its stack. */
function reasonOf(message: string): string {
  try {
    return String(JSON.parse(message).message ?? message)
  } catch {
    return message
  }
}
