import { StatusPage } from './status-page.js'

new StatusPage().start()
