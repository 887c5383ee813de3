// The rate at which this machine can check a password: nothing but that.
const hash = await Bun.password.hash('correct horse', { algorithm: 'bcrypt', cost: 12 })
Bun.serve({
  port: Number(process.env.PORT),
  hostname: '127.0.0.1',
  development: false,
  routes: {
    '/health': () => Response.json({ status: 'healthy' }),
    '/api/v1/auth/login': async () =>
      Response.json({ matches: await Bun.password.verify('correct horse', hash) }),
  },
})
