import react from "@vitejs/plugin-react"
import { defineConfig } from "vite"

// The address is the one in kratos-config/kratos.yml: 127.0.0.1, as Kratos, so that both are one site to a browser.
const address = { host: "127.0.0.1", port: 4455, strictPort: true }

export default defineConfig({
  plugins: [react()],
  server: address,
  preview: address,
  // Elements brings its texts in every language.
  build: { chunkSizeWarningLimit: 4000 },
})
